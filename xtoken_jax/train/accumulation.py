r"""The gradient of a batch's loss, part by part, exactly as if the batch had been whole.

A loss that is a function f of sums over the batch (cross-entropy, distillation and their counts)
has the gradient

.. math:: \sum_m J_m^\top \, f'(s), \qquad s = \sum_m s_m

where `s_m` are the sums of part m and `J_m` their Jacobian. `f'` takes the sums of the whole batch,
as dynamic scaling and the trust in a teacher do, so they are computed first, without a gradient.
What is held constant in a part, its teachers' hidden states, is then kept for the second pass.
Where `f'` takes counts alone, as with fixed scaling, the compiler drops the rest of the first pass.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Sums = TypeVar("Sums")
Aux = TypeVar("Aux")
Tree = TypeVar("Tree")


def value_and_accumulated_grad(
    constants_of: Callable[[Any], Any],
    sums_of: Callable[[Tree, Any, Any], Sums],
    total_of: Callable[[Sums], tuple[Float[Array, ""], Aux]],
    params: Tree,
    parts: Any,
    *,
    keep: bool = True,
    shardings: Tree | None = None,
) -> tuple[tuple[Float[Array, ""], Aux], Tree]:
    """A loss, what is said of it, and its gradient in the parameters.

    Args:
        constants_of: From one part of the batch to what does not depend on the parameters.
        sums_of: From parameters, those constants, and the part to sums.
        total_of: From the sums of all parts to the loss and an auxiliary value.
        params: Floating-point arrays.
        parts: Arrays [M, ...], one entry a part.
        keep: Whether the constants of all parts are kept between the passes, or computed in both.
        shardings: Of the gradient, where there is a mesh; by default the compiler's choice.

    Returns:
        `(loss, auxiliary value), gradient`.
    """
    if len(jax.tree.leaves(parts)[0]) == 1:
        part = jax.tree.map(lambda x: x[0], parts)
        constants = constants_of(part)
        whole = jax.value_and_grad(lambda p: total_of(sums_of(p, constants, part)), has_aux=True)
        return whole(params)

    def add_sums(sums, part):
        constants = constants_of(part)
        return _added(sums, sums_of(params, constants, part)), constants if keep else None

    def add_gradient(carry, of_part):
        part, constants = of_part
        if not keep:
            constants = constants_of(part)
        sums, gradient = carry
        of_part, pull_back = jax.vjp(lambda p: sums_of(p, constants, part), params)
        (gradient_of_part,) = pull_back(cotangent)
        return (_added(sums, of_part), pinned(_added(gradient, gradient_of_part))), None

    def pinned(gradient):
        if shardings is None:
            return gradient
        return jax.lax.with_sharding_constraint(gradient, shardings)

    first = jax.tree.map(lambda x: x[0], parts)
    nothing = _zeros(jax.eval_shape(lambda: sums_of(params, constants_of(first), first)))
    sums, kept = jax.lax.scan(add_sums, nothing, parts)
    cotangent, _ = jax.grad(total_of, has_aux=True)(sums)
    carry = (nothing, pinned(_zeros(params)))
    (sums, gradient), _ = jax.lax.scan(add_gradient, carry, (parts, kept))
    return total_of(sums), gradient


def _added(left: Tree, right: Tree) -> Tree:
    return jax.tree.map(jnp.add, left, right)


def _zeros(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)
