"""Next-token cross-entropy."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.ops import log_softmax, pick


def cross_entropy(
    logits_NV: Float[Array, "N V"],
    target_ids_N: Int[Array, " N"],
    mask_N: Bool[Array, " N"],
    *,
    num_tokens: int | None = None,
) -> Float[Array, " N"]:
    r"""Negative log-probability of each next token.

    .. math:: -\log \mathrm{softmax}(z)_y

    Args:
        logits_NV: At each position, before softmax.
        target_ids_N: The token that follows it.
        mask_N: False where there is none; those positions return exactly 0.
        num_tokens: Columns from here on are padding of the vocabulary and get no probability.

    Returns:
        Nats per token, shape [N], float32, unreduced.
    """
    num_tokens = logits_NV.shape[1] if num_tokens is None else num_tokens
    log_probs_VN = log_softmax(logits_NV.T, num_tokens=num_tokens)
    return jnp.where(mask_N, -pick(log_probs_VN, target_ids_N), 0.0)
