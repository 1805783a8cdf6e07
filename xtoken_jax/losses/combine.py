"""How the distillation loss and cross-entropy add up."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def mean_over(total: Float[Array, ""], count: Float[Array, ""]) -> Float[Array, ""]:
    """`total / count`, and exactly 0 with gradient 0 where nothing was counted."""
    return jnp.where(count > 0, total / jnp.maximum(count, 1.0), 0.0)


def dynamic_scaling(
    distillation: Float[Array, ""], cross_entropy: Float[Array, ""]
) -> Float[Array, ""]:
    r"""Bring the distillation loss to the size of cross-entropy, then add both.

    .. math:: \mathrm{sg}\!\left(\frac{CE}{KD}\right) KD + CE

    The value is therefore twice the cross-entropy; what changes is the direction of the gradient.
    Where the distillation loss is 0, cross-entropy stands alone.

    Source: X-Token (arXiv 2605.21699), dynamic scaling.
    """
    usable = distillation > 0
    ratio = jnp.where(usable, cross_entropy / jnp.where(usable, distillation, 1.0), 0.0)
    return jax.lax.stop_gradient(ratio) * distillation + cross_entropy


def fixed_scaling(
    distillation: Float[Array, ""],
    cross_entropy: Float[Array, ""],
    *,
    distillation_weight: float,
    cross_entropy_weight: float,
) -> Float[Array, ""]:
    """A weighted sum."""
    return distillation_weight * distillation + cross_entropy_weight * cross_entropy
