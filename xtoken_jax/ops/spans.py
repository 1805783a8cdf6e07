"""Chunks on the device, and sums of log-probabilities inside them."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.align import Alignment, scored


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Spans:
    """Chunks of a batch in fixed shapes; position `i - 1` predicts token `i`.

    Attributes:
        student_chunk_BS: Chunk of each student token, -1 for none.
        teacher_chunk_BT: Chunk of each teacher token, -1 for none.
        student_start_BN: Position of each chunk's first student token, 0 on padding.
        teacher_start_BN: Position of each chunk's first teacher token, 0 on padding.
        mask_BN: True for chunks that are scored: both sides have a predictor and the loss
            covers them. Where it is True both starts are at least 1.
    """

    student_chunk_BS: Int[Array, "B S"]
    teacher_chunk_BT: Int[Array, "B T"]
    student_start_BN: Int[Array, "B N"]
    teacher_start_BN: Int[Array, "B N"]
    mask_BN: Bool[Array, "B N"]


def spans_of(alignment: Alignment, *, student_length: int, teacher_length: int) -> Spans:
    """The chunks of an alignment in fixed shapes, one row a text, on the host.

    Chunks that do not lie within the lengths on both sides are left out, as are those at the
    first position of either side, which nothing predicts.

    Args:
        alignment: Of a batch of texts.
        student_length: S, positions a row.
        teacher_length: T.
    """
    batch = len(alignment)
    arrays = {
        "student_chunk_BS": np.full((batch, student_length), -1, np.int32),
        "teacher_chunk_BT": np.full((batch, teacher_length), -1, np.int32),
        "student_start_BN": np.zeros((batch, student_length), np.int32),
        "teacher_start_BN": np.zeros((batch, student_length), np.int32),
        "mask_BN": np.zeros((batch, student_length), bool),
    }
    for row in range(batch):
        chunks_N4 = alignment[row]
        fits_N = (chunks_N4[:, 1] <= student_length) & (chunks_N4[:, 3] <= teacher_length)
        kept_N4 = chunks_N4[scored(chunks_N4) & fits_N]
        for chunk, (a, b, c, d) in enumerate(kept_N4.tolist()):
            arrays["student_chunk_BS"][row, a:b] = arrays["teacher_chunk_BT"][row, c:d] = chunk
        count = len(kept_N4)
        arrays["student_start_BN"][row, :count] = kept_N4[:, 0]
        arrays["teacher_start_BN"][row, :count] = kept_N4[:, 2]
        arrays["mask_BN"][row, :count] = True
    return Spans(**{name: jnp.asarray(array) for name, array in arrays.items()})


def teacher_predictors(spans: Spans) -> Int[Array, "B S"]:
    """For each student position, the teacher position that predicts the same chunk.

    Returns:
        The teacher position before the chunk that begins right after the student position; -1
        where no scored chunk begins there.
    """
    next_BS = jnp.roll(spans.student_chunk_BS, -1, axis=1).at[:, -1].set(-1)
    chunk_BS = jnp.maximum(next_BS, 0)
    start_BS = jnp.take_along_axis(spans.student_start_BN, chunk_BS, axis=1)
    mask_BS = jnp.take_along_axis(spans.mask_BN, chunk_BS, axis=1)
    position_1S = jnp.arange(next_BS.shape[1])[None, :]
    begins_BS = (next_BS >= 0) & mask_BS & (start_BS == position_1S + 1)
    teacher_BS = jnp.take_along_axis(spans.teacher_start_BN, chunk_BS, axis=1) - 1
    return jnp.where(begins_BS, teacher_BS, -1)


def inside_chunks(
    chunk_BS: Int[Array, "B S"], start_BN: Int[Array, "B N"], mask_BN: Bool[Array, "B N"]
) -> Bool[Array, "B S"]:
    """Positions of a side that predict a token of a scored chunk which is not its first.

    Args:
        chunk_BS: Chunk of each token, -1 for none.
        start_BN: Position of each chunk's first token.
        mask_BN: Chunks that are scored.
    """
    next_BS = jnp.roll(chunk_BS, -1, axis=1).at[:, -1].set(-1)
    start_BS, mask_BS = (
        jnp.take_along_axis(array_BN, jnp.maximum(next_BS, 0), axis=1)
        for array_BN in (start_BN, mask_BN)
    )
    return (next_BS >= 0) & mask_BS & (jnp.arange(next_BS.shape[1])[None, :] >= start_BS)


def at_predictors(values_BS: Float[Array, "B S"], spans: Spans) -> Float[Array, "B N"]:
    """Per-position values of the student, at the position that predicts each chunk; 0 if masked."""
    predictor_BN = jnp.maximum(spans.student_start_BN - 1, 0)
    return jnp.where(spans.mask_BN, jnp.take_along_axis(values_BS, predictor_BN, axis=1), 0.0)


def rest_log_probs(
    log_probs_BS: Float[Array, "B S"],
    chunk_BS: Int[Array, "B S"],
    start_BN: Int[Array, "B N"],
) -> Float[Array, "B N"]:
    """Log-probability of what follows a chunk's first token inside the chunk, in nats.

    Args:
        log_probs_BS: At position `i`, the log-probability of token `i + 1`.
        chunk_BS: Chunk of each token, -1 for none.
        start_BN: Position of each chunk's first token.
    """
    of_token_BS = jnp.roll(log_probs_BS, 1, axis=1)
    start_BS = jnp.take_along_axis(start_BN, jnp.maximum(chunk_BS, 0), axis=1)
    position_1S = jnp.arange(chunk_BS.shape[1])[None, :]
    counts_BS = (chunk_BS >= 0) & (position_1S > start_BS)
    terms_BS = jnp.where(counts_BS, of_token_BS, 0.0)
    return jax.vmap(
        lambda terms_S, chunk_S: jax.ops.segment_sum(
            terms_S, jnp.maximum(chunk_S, 0), num_segments=start_BN.shape[1]
        )
    )(terms_BS, chunk_BS)


def chunk_lengths(chunk_BS: Int[Array, "B S"], num_chunks: int) -> Int[Array, "B N"]:
    """Tokens of each chunk on one side.

    Args:
        chunk_BS: Chunk of each token, -1 for none.
        num_chunks: N.
    """
    return jax.vmap(
        lambda chunk_S: jax.ops.segment_sum(
            (chunk_S >= 0).astype(jnp.int32), jnp.maximum(chunk_S, 0), num_segments=num_chunks
        )
    )(chunk_BS)
