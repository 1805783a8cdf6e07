"""The common set of GOLD and H-KL on the device, and what is left of both vocabularies."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from xtoken_jax.projection import CommonSet


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DeviceCommonSet:
    """Pairs of one student and one teacher token, `C` of them, and the tokens in no pair.

    The tokens in no pair are listed by id, so that sorting their probabilities does not touch the
    rest of a vocabulary. Rows of an unembedding past its tokenizer are in neither list.

    Attributes:
        student_ids_C: Ascending, int32.
        teacher_ids_C: The other halves.
        student_rest_R: Student tokens in no pair, ascending, int32.
        teacher_rest_Q: Teacher tokens in no pair.
        teacher_of_student_V: The other half of each student token's pair, 0 where there is none; as
            long as the student's unembedding. Reading the pairs so spares the gradient a scatter.
        is_common_V: True for student tokens in a pair.
        is_common_U: Likewise for the teacher's.
        num_student_tokens: Rows of the student's unembedding past this are padding.
        num_teacher_tokens: Likewise for the teacher's.
    """

    student_ids_C: Int[Array, " C"]
    teacher_ids_C: Int[Array, " C"]
    student_rest_R: Int[Array, " R"]
    teacher_rest_Q: Int[Array, " Q"]
    teacher_of_student_V: Int[Array, " V"]
    is_common_V: Bool[Array, " V"]
    is_common_U: Bool[Array, " U"]
    num_student_tokens: int = field(metadata={"static": True})
    num_teacher_tokens: int = field(metadata={"static": True})


def common_set_to_device(
    common: CommonSet,
    *,
    num_student_tokens: int,
    num_teacher_tokens: int,
    student_vocab_size: int | None = None,
    teacher_vocab_size: int | None = None,
) -> DeviceCommonSet:
    """Put a common set on the device.

    Args:
        common: From `exact_pairs` or `hybrid_pairs`.
        num_student_tokens: Of the student's tokenizer.
        num_teacher_tokens: Of the teacher's.
        student_vocab_size: Rows of the student's unembedding; the tokenizer's size by default.
        teacher_vocab_size: Likewise for the teacher's.

    Raises:
        ValueError: a pair's token is not in its vocabulary or in two pairs, or an unembedding has
            fewer rows than its tokenizer has tokens.
    """
    is_common_V = _members(common.student_ids_N, num_student_tokens, student_vocab_size, "student")
    is_common_U = _members(common.teacher_ids_N, num_teacher_tokens, teacher_vocab_size, "teacher")
    teacher_of_student_V = np.zeros(len(is_common_V), np.int32)
    teacher_of_student_V[common.student_ids_N] = common.teacher_ids_N
    student_rest_R = np.flatnonzero(~is_common_V[:num_student_tokens])
    teacher_rest_Q = np.flatnonzero(~is_common_U[:num_teacher_tokens])
    return DeviceCommonSet(
        jnp.asarray(common.student_ids_N, jnp.int32),
        jnp.asarray(common.teacher_ids_N, jnp.int32),
        jnp.asarray(student_rest_R, jnp.int32),
        jnp.asarray(teacher_rest_Q, jnp.int32),
        jnp.asarray(teacher_of_student_V),
        jnp.asarray(is_common_V),
        jnp.asarray(is_common_U),
        num_student_tokens,
        num_teacher_tokens,
    )


def _members(ids_N: np.ndarray, num_tokens: int, vocab_size: int | None, side: str) -> np.ndarray:
    """Which rows of an unembedding are in a pair."""
    if vocab_size is not None and vocab_size < num_tokens:
        raise ValueError(
            f"`{side}_vocab_size` must be at least the tokenizer's {num_tokens}, got {vocab_size}"
        )
    if len(ids_N) and not 0 <= ids_N.min() <= ids_N.max() < num_tokens:
        raise ValueError(
            f"`common.{side}_ids_N` must be below `num_{side}_tokens` {num_tokens} and not "
            f"negative, got {ids_N.min()} to {ids_N.max()}"
        )
    is_common = np.zeros(num_tokens if vocab_size is None else vocab_size, bool)
    is_common[ids_N] = True
    if is_common.sum() != len(ids_N):
        raise ValueError(f"`common.{side}_ids_N` must not repeat a token, got one in two pairs")
    return is_common
