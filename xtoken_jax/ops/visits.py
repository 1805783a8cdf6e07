"""Walks over some positions of a batch, as many blocks as they need."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


def visit_blocks(
    function: Callable[..., tuple[Any, Any]],
    carry: Any,
    arrays_BS: Any,
    mask_BS: Bool[Array, "B S"],
    *,
    block_tokens: int,
) -> tuple[Any, Any]:
    """Call `function` on blocks that hold the positions of a mask, and on no more of them.

    The positions of each row come in their order, those of the mask first; the walk ends where no
    row has any left. It is not differentiable: its callers write their gradients.

    Args:
        function: `(carry, block)` to the next carry and a pytree of `[N, ...]` arrays, where
            `block` is a pytree like `arrays_BS` with `[N, ...]` arrays.
        carry: Handed from block to block.
        arrays_BS: Pytree of `[B, S, ...]` arrays.
        mask_BS: Positions wanted. A block may hold others besides; their outputs are dropped, but
            not what they do to the carry.
        block_tokens: Tokens a block, over the whole batch; at least one position of every row.

    Returns:
        The last carry, and a pytree of `[B, S, ...]` arrays, 0 outside the mask.
    """
    batch, length = mask_BS.shape
    width = min(length, max(1, block_tokens // batch))
    num_blocks = -(-length // width)
    order_BS = jnp.argsort(~mask_BS, axis=1, stable=True)
    padded_BM = jnp.pad(order_BS, [(0, 0), (0, num_blocks * width - length)], mode="edge")
    needed = -(-mask_BS.sum(axis=1).max() // width)

    def flat(array_Bn):
        return array_Bn.reshape(batch * width, *array_Bn.shape[2:])

    def step(block, state):
        carry, outputs_BM = state
        at_Bn = jax.lax.dynamic_slice_in_dim(padded_BM, block * width, width, axis=1)
        carry, outputs_N = function(carry, jax.tree.map(lambda a: flat(_at(a, at_Bn)), arrays_BS))
        return carry, jax.tree.map(
            lambda all_BM, new_N: jax.lax.dynamic_update_slice_in_dim(
                all_BM, new_N.reshape(batch, width, *new_N.shape[1:]), block * width, axis=1
            ),
            outputs_BM,
            outputs_N,
        )

    example = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((batch * width, *a.shape[2:]), a.dtype), arrays_BS
    )
    outputs_BM = jax.tree.map(
        lambda out: jnp.zeros((batch, num_blocks * width, *out.shape[1:]), out.dtype),
        jax.eval_shape(function, carry, example)[1],
    )
    carry, outputs_BM = jax.lax.fori_loop(0, needed, step, (carry, outputs_BM))
    place_BS = jnp.argsort(order_BS, axis=1)
    return carry, jax.tree.map(lambda o: _back(o, place_BS, mask_BS), outputs_BM)


def _back(output_BM, place_BS, mask_BS):
    """An output in the order of the positions, 0 outside the mask."""
    output_BS = _at(output_BM, place_BS)
    is_wanted = mask_BS.reshape(*mask_BS.shape, *(1,) * (output_BS.ndim - 2))
    return jnp.where(is_wanted, output_BS, jnp.zeros_like(output_BS))


def _at(array_BS, positions_Bn):
    """Entries of every row at some of its positions."""
    index = positions_Bn.reshape(*positions_Bn.shape, *(1,) * (array_BS.ndim - 2))
    return jnp.take_along_axis(array_BS, index, axis=1)
