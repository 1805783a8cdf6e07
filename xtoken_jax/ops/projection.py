"""W on the device: a BCOO matrix that carries student probabilities to teacher tokens."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse
from jaxtyping import Array, Bool, Float

from xtoken_jax.projection import Projection


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DeviceProjection:
    """W transposed, padded to both models' unembeddings.

    Attributes:
        matrix_UV: BCOO, entries sorted by teacher token, so that the scatter runs in order.
        reachable_U: True for teacher tokens that W puts mass on.
        num_student_tokens: Rows of the student's unembedding past this are padding.
        num_teacher_tokens: Likewise for the teacher's.
    """

    matrix_UV: sparse.BCOO
    reachable_U: Bool[Array, " U"]
    num_student_tokens: int = field(metadata={"static": True})
    num_teacher_tokens: int = field(metadata={"static": True})


def to_device(
    projection: Projection,
    *,
    student_vocab_size: int | None = None,
    teacher_vocab_size: int | None = None,
) -> DeviceProjection:
    """Put W on the device.

    Args:
        projection: From `build_projection` or `load_projection`.
        student_vocab_size: Rows of the student's unembedding; the tokenizer's size by default.
        teacher_vocab_size: Likewise for the teacher's.

    Raises:
        ValueError: an unembedding has fewer rows than its tokenizer has tokens.
    """
    num_rows = _checked_size(student_vocab_size, projection.num_student_tokens, "student")
    num_columns = _checked_size(teacher_vocab_size, projection.num_teacher_tokens, "teacher")
    row_N, rank_N = np.nonzero(projection.ids_VK >= 0)
    column_N = projection.ids_VK[row_N, rank_N]
    order_N = np.lexsort((row_N, column_N))
    indices_N2 = np.stack([column_N, row_N], axis=1)[order_N].astype(np.int32)
    matrix_UV = sparse.BCOO(
        (jnp.asarray(projection.weights_VK[row_N, rank_N][order_N]), jnp.asarray(indices_N2)),
        shape=(num_columns, num_rows),
        indices_sorted=True,
        unique_indices=True,
    )
    reachable_U = np.zeros(num_columns, bool)
    reachable_U[: projection.num_teacher_tokens] = projection.reachable_U
    return DeviceProjection(
        matrix_UV,
        jnp.asarray(reachable_U),
        projection.num_student_tokens,
        projection.num_teacher_tokens,
    )


def _checked_size(vocab_size: int | None, num_tokens: int, side: str) -> int:
    if vocab_size is not None and vocab_size < num_tokens:
        raise ValueError(
            f"`{side}_vocab_size` must be at least the tokenizer's {num_tokens}, got {vocab_size}"
        )
    return num_tokens if vocab_size is None else vocab_size


def project(probs_VN: Float[Array, "V N"], projection: DeviceProjection) -> Float[Array, "U N"]:
    """Carry distributions over student tokens to teacher tokens, `W^T p`, one a column.

    Vocabulary-major, so that each entry of W moves one contiguous row of `N` numbers. Mass on
    empty rows of W is lost: a column sums to the mass that W carries.
    """
    return projection.matrix_UV @ probs_VN
