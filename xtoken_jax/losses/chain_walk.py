"""Chain KL of a batch, block by block, from hidden states and unembeddings or from logits."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.losses.chain_kl import chain_kl_terms, first_terms, later_terms, mean_over_terms
from xtoken_jax.losses.walks import ModelOutput
from xtoken_jax.ops import log_softmax, map_blocks
from xtoken_jax.ops.piece_trie import DevicePieceTrie
from xtoken_jax.projection.piece_trie import TEACHER_SPACE, ChainTerms


class TermGroup(NamedTuple):
    """Terms of one kind, padded to as many a row.

    Attributes:
        student_at_BM: Student position of each term.
        teacher_at_BM: Teacher position.
        node_BM: Node of the prefix; -1 on padding.
        chunk_BM: Chunk of the row; -1 on padding.
    """

    student_at_BM: Int[Array, "B M"]
    teacher_at_BM: Int[Array, "B M"]
    node_BM: Int[Array, "B M"]
    chunk_BM: Int[Array, "B M"]


class ChainBatch(NamedTuple):
    """The terms of a batch, by what has to be computed for them.

    Attributes:
        first: In the teacher's vocabulary, nothing of the chunk seen yet.
        later: In the teacher's vocabulary, after a prefix.
        in_student_space: In the student's, both kinds.
    """

    first: TermGroup
    later: TermGroup
    in_student_space: TermGroup


class Tries(NamedTuple):
    """Each vocabulary by the pieces of the other."""

    student_by_teacher: DevicePieceTrie
    teacher_by_student: DevicePieceTrie


class Capacity(NamedTuple):
    """Places a row for the terms of each group of a `ChainBatch`."""

    first: int
    later: int
    in_student_space: int


def chain_batch(terms: Sequence[ChainTerms], capacity: Capacity | None = None) -> ChainBatch:
    """Terms of the texts of a batch, one row a text, in NumPy.

    Args:
        terms: Of each row.
        capacity: So that every batch has the same shapes; by default what the fullest row needs.

    Raises:
        ValueError: a row has more terms of a group than `capacity` has places.
    """
    in_teacher_space = [row.side_N == TEACHER_SPACE for row in terms]
    at_root = [row.node_N == 0 for row in terms]
    wanted = (
        [a & b for a, b in zip(in_teacher_space, at_root, strict=True)],
        [a & ~b for a, b in zip(in_teacher_space, at_root, strict=True)],
        [~a for a in in_teacher_space],
    )
    if capacity is None:
        capacity = Capacity(*(max([1, *(int(a.sum()) for a in group)]) for group in wanted))
    groups = zip(wanted, capacity, strict=True)
    return ChainBatch(*(_group(terms, group, places) for group, places in groups))


def _group(terms: Sequence[ChainTerms], wanted: Sequence[np.ndarray], places: int) -> TermGroup:
    most = max(int(keep_N.sum()) for keep_N in wanted)
    if most > places:
        raise ValueError(f"`capacity` must hold the {most} terms of a row, got {places}")
    columns = []
    for name, padding in (
        ("student_position_N", 0),
        ("teacher_position_N", 0),
        ("node_N", -1),
        ("chunk_N", -1),
    ):
        values_BM = np.full((len(terms), places), padding, np.int32)
        for row, keep_N in enumerate(wanted):
            values_BM[row, : keep_N.sum()] = getattr(terms[row], name)[keep_N]
        columns.append(values_BM)
    return TermGroup(*columns)


def chain_kl_losses(
    student: ModelOutput,
    teacher: ModelOutput,
    terms: ChainBatch,
    tries: Tries,
    mask_BN: Bool[Array, "B N"],
    *,
    temperature: float = 1.0,
    reverse: bool = False,
    block_tokens: int = 256,
) -> tuple[Float[Array, "B N"], Bool[Array, "B N"]]:
    """C-KL of each chunk of a batch, from hidden states or logits.

    The gradient reaches the student. No array is as large as the batch's logits.

    Args:
        student: With gradient.
        teacher: Held constant.
        terms: From `chain_batch`.
        tries: Padded to both models' unembeddings.
        mask_BN: Chunks that count, by the indices that the terms have.
        temperature: Divides all logits; the loss is scaled by its square.
        reverse: KL from the student to the teacher.
        block_tokens: Terms a block, over the whole batch.

    Returns:
        Nats per chunk, the mean over its terms, unreduced, 0 where there are none or the mask is
        False; and which chunks count.

    Raises:
        ValueError: `temperature` is not positive.
    Source: this project.
    """
    if temperature <= 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}")
    teacher = jax.tree.map(jax.lax.stop_gradient, teacher)
    by_teacher, by_student = tries

    def first(log_p_VN, log_q_UN, _):
        return first_terms(log_p_VN, log_q_UN, by_teacher, reverse=reverse)

    def later(log_p_VN, log_q_UN, node_N):
        return later_terms(log_p_VN, log_q_UN, by_teacher, node_N, reverse=reverse)

    def in_student_space(log_p_VN, log_q_UN, node_N):
        # The teacher is the one that is carried, so that the direction is the other one.
        return chain_kl_terms(log_q_UN, log_p_VN, by_student, node_N, reverse=not reverse)

    num_tokens = by_teacher.num_student_tokens, by_teacher.num_teacher_tokens
    walked = [
        _walk(student, teacher, group, function, num_tokens, temperature, block_tokens)
        for group, function in zip(terms, (first, later, in_student_space), strict=True)
    ]
    values_BM = jnp.concatenate(walked, axis=1)
    chunk_BM = jnp.concatenate([group.chunk_BM for group in terms], axis=1)
    chunk_BM = jnp.where(jnp.take_along_axis(mask_BN, jnp.maximum(chunk_BM, 0), 1), chunk_BM, -1)
    num_chunks = mask_BN.shape[1]
    loss_BN = jax.vmap(lambda kl, chunk: mean_over_terms(kl, chunk, num_chunks))(
        values_BM, chunk_BM
    )
    has_terms_BN = jax.vmap(lambda chunk: jnp.zeros(num_chunks, bool).at[chunk].set(True))(
        jnp.where(chunk_BM >= 0, chunk_BM, num_chunks)
    )
    return temperature**2 * loss_BN, has_terms_BN


def _walk(
    student: ModelOutput,
    teacher: ModelOutput,
    group: TermGroup,
    function: Callable[..., Float[Array, " N"]],
    num_tokens: tuple[int, int],
    temperature: float,
    block_tokens: int,
) -> Float[Array, "B M"]:
    """One value for each term; on padding it means nothing."""

    def terms_of(arrays):
        *positions, node_BM = arrays
        log_probs = []
        for model, at_BM, count in zip((student, teacher), positions, num_tokens, strict=True):
            hidden_BMD = jnp.take_along_axis(model.hidden_BSD, at_BM[:, :, None], axis=1)
            logits_VN = model.logits(hidden_BMD.reshape(-1, hidden_BMD.shape[-1]))
            log_probs.append(log_softmax(logits_VN / temperature, num_tokens=count))
        return function(*log_probs, node_BM.reshape(-1)).reshape(node_BM.shape)

    def block(arrays):
        # Groups have places for the fullest batch; blocks of padding alone cost nothing.
        node_BM = arrays[2]
        nothing_BM = jnp.zeros(node_BM.shape, jnp.float32)
        return jax.lax.cond((node_BM >= 0).any(), terms_of, lambda _: nothing_BM, arrays)

    arrays_BM = (group.student_at_BM, group.teacher_at_BM, group.node_BM)
    return map_blocks(block, arrays_BM, block_tokens=block_tokens, keep_rows=True)
