"""Log-probabilities from hidden states, and the walk over blocks of tokens.

A `[tokens, vocabulary]` array of a whole batch never exists: a block's is made, used and dropped,
and made again for the gradient.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def log_softmax(logits_VN: Float[Array, "V N"], *, num_tokens: int) -> Float[Array, "V N"]:
    """Float32 log-probabilities over the first axis; rows from `num_tokens` on get none."""
    logits_VN = logits_VN.astype(jnp.float32)
    is_token_V1 = jnp.arange(logits_VN.shape[0])[:, None] < num_tokens
    return jax.nn.log_softmax(jnp.where(is_token_V1, logits_VN, -jnp.inf), axis=0)


def unembed(
    hidden_ND: Float[Array, "N D"], unembedding_VD: Float[Array, "V D"]
) -> Float[Array, "V N"]:
    """Logits, vocabulary-major, accumulated in float32."""
    return jnp.einsum("VD,ND->VN", unembedding_VD, hidden_ND, preferred_element_type=jnp.float32)


def pick(log_probs_VN: Float[Array, "V N"], ids_N: Int[Array, " N"]) -> Float[Array, " N"]:
    """The entry of each column that `ids_N` names; any entry where the id is negative."""
    return jnp.take_along_axis(log_probs_VN, jnp.maximum(ids_N, 0)[None, :], axis=0)[0]


def map_blocks(
    function: Callable[[Any], Any],
    arrays_BS: Any,
    *,
    block_tokens: int,
    remat: bool = True,
    keep_rows: bool = False,
) -> Any:
    """Apply `function` to blocks of positions, one after another.

    Args:
        function: From a pytree of `[N, ...]` arrays to a pytree of `[N, ...]` arrays, token by
            token. What it closes over may be differentiated.
        arrays_BS: Pytree of `[B, S, ...]` arrays. Blocks run along `S` with all of `B`, so
            that a batch sharded over devices stays where it is.
        block_tokens: Tokens a block, over the whole (global) batch; at least one position of
            every row is taken. The last block is padded with zeros.
        remat: Make a block's intermediates again for the gradient instead of keeping them.
        keep_rows: Give `function` arrays `[B, n, ...]` and take such arrays back, so that it can
            read from other arrays of the batch, row by row.

    Returns:
        Pytree of `[B, S, ...]` arrays.
    """
    batch, length = jax.tree.leaves(arrays_BS)[0].shape[:2]
    width = min(length, max(1, block_tokens // batch))
    num_blocks = -(-length // width)

    def split(array):
        padding = [(0, 0), (0, num_blocks * width - length)] + [(0, 0)] * (array.ndim - 2)
        array = jnp.pad(array, padding).reshape(batch, num_blocks, width, *array.shape[2:])
        return jnp.moveaxis(array, 1, 0)

    def run(block):
        if keep_rows:
            return function(block)
        flat = jax.tree.map(lambda array: array.reshape(batch * width, *array.shape[2:]), block)
        return function(flat)

    def join(array):
        array = array.reshape(num_blocks, batch, width, *array.shape[3 if keep_rows else 2 :])
        array = jnp.moveaxis(array, 0, 1).reshape(batch, num_blocks * width, *array.shape[3:])
        return array[:, :length]

    blocks = jax.tree.map(split, arrays_BS)
    return jax.tree.map(join, jax.lax.map(jax.checkpoint(run) if remat else run, blocks))
