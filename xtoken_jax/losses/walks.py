"""Walks over a batch, block by block, from hidden states and unembeddings to values per chunk."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.losses.model_output import ModelOutput
from xtoken_jax.ops import (
    Spans,
    at_predictors,
    chunk_lengths,
    map_blocks,
    teacher_predictors,
)


def walk_predictors(
    student: ModelOutput,
    teacher: ModelOutput,
    spans: Spans,
    function: Callable[..., Any],
    *,
    block_tokens: int,
) -> Any:
    """Call `function` at every student position, with the teacher's logits for the same chunk.

    Args:
        student: Its logits and next tokens are read at each position.
        teacher: Its logits are read at the position that predicts the chunk that begins right
            after the student's, and mean nothing where none does.
        spans: Chunks of the batch.
        function: `(student_logits_VN, teacher_logits_UN, next_ids_N)` to a pytree of `[N]` arrays.
        block_tokens: Student positions a block, over the whole batch.

    Returns:
        Pytree of `[B, S]` arrays; `at_predictors` brings them to the chunks.
    """
    teacher_at_BS = teacher_predictors(spans)
    teacher_hidden_BSE = jnp.take_along_axis(
        teacher.hidden_BSD, jnp.maximum(teacher_at_BS, 0)[:, :, None], axis=1
    )
    next_ids_BS = jnp.roll(student.ids_BS, -1, axis=1)

    def block(arrays):
        hidden_ND, teacher_hidden_NE, next_ids_N = arrays
        logits = student.logits(hidden_ND), teacher.logits(teacher_hidden_NE)
        return function(*logits, next_ids_N)

    arrays_BS = (student.hidden_BSD, teacher_hidden_BSE, next_ids_BS)
    return map_blocks(block, arrays_BS, block_tokens=block_tokens)


class Lengths(NamedTuple):
    """Tokens of each chunk, and which chunks are short enough to be scored."""

    student_BN: Int[Array, "B N"]
    teacher_BN: Int[Array, "B N"]
    mask_BN: Bool[Array, "B N"]


def scored_lengths(spans: Spans, *, max_chunk_tokens: int) -> Lengths:
    """Lengths of the chunks; longer ones than `max_chunk_tokens` on either side are masked."""
    num_chunks = spans.mask_BN.shape[1]
    student_BN = chunk_lengths(spans.student_chunk_BS, num_chunks)
    teacher_BN = chunk_lengths(spans.teacher_chunk_BT, num_chunks)
    fits_BN = jnp.maximum(student_BN, teacher_BN) <= max_chunk_tokens
    return Lengths(student_BN, teacher_BN, spans.mask_BN & fits_BN)


class Side(NamedTuple):
    """What `walk_means` averages on one side.

    Attributes:
        model: Hidden states and unembedding.
        values: Logits `[V, N]` to what is averaged, `[V, N]`.
    """

    model: ModelOutput
    values: Callable[[Float[Array, "V N"]], Float[Array, "V N"]]


def walk_means(
    student: Side,
    teacher: Side,
    spans: Spans,
    lengths: Lengths,
    function: Callable[..., Any],
    *,
    max_chunk_tokens: int,
    block_tokens: int,
) -> Any:
    """Call `function` with the means of both sides' values over the positions of each chunk.

    Chunks are taken in the order of their lengths, so that the few long ones share their blocks
    and all others read one position a side.

    Args:
        student: Values that are averaged over the positions that predict the chunk's tokens.
        teacher: Likewise.
        spans: Chunks of the batch.
        lengths: Of the chunks.
        function: `(student_mean_VN, teacher_mean_UN)` to a pytree of `[N]` arrays.
        max_chunk_tokens: Of the longest chunk that is scored.
        block_tokens: Chunks a block, over the whole batch.

    Returns:
        Pytree of `[B, N]` arrays; values of masked chunks mean nothing.
    """
    longest_BN = jnp.where(lengths.mask_BN, jnp.maximum(lengths.student_BN, lengths.teacher_BN), 0)
    order_BN = jnp.argsort(-longest_BN, axis=1)
    starts = (spans.student_start_BN, spans.teacher_start_BN)
    counts = (lengths.student_BN, lengths.teacher_BN)
    arrays = jax.tree.map(
        lambda array: jnp.take_along_axis(array, order_BN, axis=1),
        (starts, tuple(jnp.where(lengths.mask_BN, count, 0) for count in counts)),
    )

    def block(arrays):
        means = [
            _mean(side, start_BN, count_BN, max_chunk_tokens)
            for side, start_BN, count_BN in zip((student, teacher), *arrays, strict=True)
        ]
        return jax.tree.map(lambda value: value.reshape(starts[0].shape[0], -1), function(*means))

    sorted_BN = map_blocks(block, arrays, block_tokens=block_tokens, keep_rows=True)
    back_BN = jnp.argsort(order_BN, axis=1)
    return jax.tree.map(lambda value: jnp.take_along_axis(value, back_BN, axis=1), sorted_BN)


def _mean(side: Side, start_BN, count_BN, max_chunk_tokens: int):
    """Mean of a side's values over `count` positions from `start - 1` on, `[V, B * n]`."""

    @jax.checkpoint
    def at_offset(offset):
        position_BN = jnp.clip(start_BN - 1 + offset, 0, side.model.hidden_BSD.shape[1] - 1)
        hidden_BND = jnp.take_along_axis(side.model.hidden_BSD, position_BN[:, :, None], axis=1)
        hidden_ND = hidden_BND.reshape(-1, hidden_BND.shape[-1])
        values_VN = side.values(side.model.logits(hidden_ND))
        share_N = jnp.where(offset < count_BN, 1.0 / jnp.maximum(count_BN, 1), 0.0).reshape(-1)
        return jnp.where(share_N[None, :] > 0, values_VN * share_N[None, :], 0.0)

    def step(total_VN, offset):
        nothing = jnp.zeros_like(total_VN)
        is_needed = (offset < count_BN).any()
        return total_VN + jax.lax.cond(is_needed, at_offset, lambda _: nothing, offset), None

    shape = (side.model.vocab_size, start_BN.size)
    total_VN, _ = jax.lax.scan(step, jnp.zeros(shape), jnp.arange(max_chunk_tokens))
    return total_VN


def largest_logits(
    model: ModelOutput, mask_BS: Bool[Array, "B S"], *, block_tokens: int
) -> Float[Array, " V"]:
    """Each token's largest logit over the positions of a mask; -inf where there is none."""

    def block(largest_V, arrays):
        hidden_BND, mask_BN = arrays
        hidden_ND = hidden_BND.reshape(-1, hidden_BND.shape[-1])
        logits_VN = model.logits(hidden_ND)
        logits_VN = jnp.where(mask_BN.reshape(-1)[None, :], logits_VN, -jnp.inf)
        return jnp.maximum(largest_V, logits_VN.max(axis=1)), None

    batch, length = mask_BS.shape
    width = min(length, max(1, block_tokens // batch))
    padding = -length % width
    hidden_BSD = jnp.pad(model.hidden_BSD, [(0, 0), (0, padding), (0, 0)])
    mask_BS = jnp.pad(mask_BS, [(0, 0), (0, padding)])
    blocks = [
        jnp.moveaxis(array.reshape(batch, -1, width, *array.shape[2:]), 1, 0)
        for array in (hidden_BSD, mask_BS)
    ]
    start_V = jnp.full(model.vocab_size, -jnp.inf)
    return jax.lax.scan(block, start_V, tuple(blocks))[0]


def at_chunks(values_BS: Any, spans: Spans) -> Any:
    """A pytree of values per student position, at the position that predicts each chunk."""
    return jax.tree.map(lambda value_BS: at_predictors(value_BS, spans), values_BS)
