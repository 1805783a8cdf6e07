"""W on the device: a BCOO matrix, and the gathers that multiply by it."""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse
from jaxtyping import Array, Bool, Float

from xtoken_jax.ops.gather_sum import GatherSum, gather_sum, gathered
from xtoken_jax.ops.split_projection import SplitProjection, split_projection
from xtoken_jax.projection import Projection

# Entries of a teacher token, or of a student token, that the first gather takes. Few have more.
_FIRST_OF_TEACHER = 2
_FIRST_OF_STUDENT = 8


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DeviceProjection:
    """W transposed, padded to both models' unembeddings.

    Attributes:
        matrix_UV: BCOO, entries sorted by teacher token.
        to_teacher: The same matrix, for `W^T p`.
        to_student: W itself, for the gradient.
        reachable_U: True for teacher tokens that W puts mass on.
        split: W in the two parts that the fast P-KL reads; None where its weights are learned.
        num_student_tokens: Rows of the student's unembedding past this are padding.
        num_teacher_tokens: Likewise for the teacher's.
    """

    matrix_UV: sparse.BCOO
    to_teacher: GatherSum
    to_student: GatherSum
    reachable_U: Bool[Array, " U"]
    split: SplitProjection | None
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
    row_N, rank_N = _entries(projection)
    column_N = projection.ids_VK[row_N, rank_N]
    weights_N = projection.weights_VK[row_N, rank_N]
    row_N = row_N.astype(np.int32)
    matrix_UV = sparse.BCOO(
        (jnp.asarray(weights_N), jnp.asarray(np.stack([column_N, row_N], axis=1))),
        shape=(num_columns, num_rows),
        indices_sorted=True,
        unique_indices=True,
    )
    reachable_U = np.zeros(num_columns, bool)
    reachable_U[: projection.num_teacher_tokens] = projection.reachable_U
    num_first = min(projection.ids_VK.shape[1], _FIRST_OF_STUDENT)
    return DeviceProjection(
        matrix_UV,
        gather_sum(column_N, row_N, weights_N, num_rows=num_columns, num_first=_FIRST_OF_TEACHER),
        gather_sum(row_N, column_N, weights_N, num_rows=num_rows, num_first=num_first),
        jnp.asarray(reachable_U),
        split_projection(
            row_N, column_N, weights_N, num_rows=num_rows, reachable_U=projection.reachable_U
        ),
        projection.num_student_tokens,
        projection.num_teacher_tokens,
    )


def to_host(projection: Projection, weights_N: np.ndarray) -> Projection:
    """W with weights in the order of `matrix_UV.data`, as a learned W has them.

    Args:
        projection: What `to_device` was given.
        weights_N: One for each entry.
    """
    weights_VK = np.zeros_like(projection.weights_VK)
    weights_VK[_entries(projection)] = weights_N
    options = {**projection.options, "learned": True}
    return replace(projection, weights_VK=weights_VK, options=options)


def _entries(projection: Projection) -> tuple[np.ndarray, np.ndarray]:
    """Student token and rank of each entry, sorted by teacher token, then by student token."""
    row_N, rank_N = np.nonzero(projection.ids_VK >= 0)
    order_N = np.lexsort((row_N, projection.ids_VK[row_N, rank_N]))
    return row_N[order_N], rank_N[order_N]


def _checked_size(vocab_size: int | None, num_tokens: int, side: str) -> int:
    if vocab_size is not None and vocab_size < num_tokens:
        raise ValueError(
            f"`{side}_vocab_size` must be at least the tokenizer's {num_tokens}, got {vocab_size}"
        )
    return num_tokens if vocab_size is None else vocab_size


def project(probs_VN: Float[Array, "V N"], projection: DeviceProjection) -> Float[Array, "U N"]:
    r"""Carry distributions over student tokens to teacher tokens, `W^T p`, one a column.

    .. math:: z_u = \sum_s W_{su} p_s

    Vocabulary-major, so that each entry of W moves one contiguous row of `N` numbers. Mass on
    empty rows of W is lost: a column sums to the mass that W carries. The gradient reaches
    `probs_VN` and, where they are traced, the weights that `with_weights` put into W.
    """
    matrix_UV = projection.matrix_UV
    tables = projection.to_teacher, projection.to_student, matrix_UV.indices
    return _product(probs_VN, matrix_UV.data, tables)


@jax.custom_vjp
def _product(probs_VN, weights_N, tables):
    del weights_N  # the tables have them; they are an argument to get a gradient
    return gathered(probs_VN, tables[0])


def _product_forward(probs_VN, weights_N, tables):
    return _product(probs_VN, weights_N, tables), (probs_VN, weights_N, tables)


def _product_backward(kept, up_UN):
    probs_VN, weights_N, (_, to_student, indices_N2) = kept
    teacher_N, student_N = indices_N2.T
    # Without a traced W nothing reads this, and the compiler drops it.
    up_weights_N = (up_UN[teacher_N] * probs_VN[student_N]).sum(axis=1)
    up_probs_VN = gathered(up_UN, to_student).astype(probs_VN.dtype)
    return up_probs_VN, up_weights_N.astype(weights_N.dtype), None


_product.defvjp(_product_forward, _product_backward)


def with_weights(projection: DeviceProjection, weights_N: Float[Array, " N"]) -> DeviceProjection:
    """The same pattern of entries with other weights, through which `project` has a gradient.

    Args:
        projection: W.
        weights_N: In the order of `projection.matrix_UV.data`.

    Raises:
        ValueError: there are more weights, or fewer, than entries.
    """
    matrix_UV = projection.matrix_UV
    if weights_N.shape != matrix_UV.data.shape:
        raise ValueError(
            f"`weights_N` must have the shape {matrix_UV.data.shape}, got {weights_N.shape}"
        )
    # `project` takes the gradient through `matrix_UV` and reads its values from the tables.
    values_N = jax.lax.stop_gradient(weights_N)

    def refill(matrix):
        first, chunks = (
            slots._replace(weights_RJ=values_N.at[slots.entries_RJ].get(mode="fill", fill_value=0))
            for slots in (matrix.first, matrix.chunks)
        )
        return matrix._replace(first=first, chunks=chunks)

    return replace(
        projection,
        matrix_UV=sparse.BCOO(
            (weights_N, matrix_UV.indices),
            shape=matrix_UV.shape,
            indices_sorted=True,
            unique_indices=True,
        ),
        to_teacher=refill(projection.to_teacher),
        to_student=refill(projection.to_student),
        split=None,
    )


def row_softmax(logits_N: Float[Array, " N"], projection: DeviceProjection) -> Float[Array, " N"]:
    r"""Weights of a learned W: a softmax within the entries of each student token.

    .. math:: W_{su} = \frac{e^{a_{su}}}{\sum_{t} e^{a_{st}}}

    Whatever the logits, rows sum to 1 and keep their entries. The logarithms of the weights that
    a row-stochastic W has give those weights back.

    Args:
        logits_N: In the order of `projection.matrix_UV.data`.
        projection: W; its entries say which logits share a row.

    Returns:
        Weights in the same order, for `with_weights`.
    """
    row_N = projection.matrix_UV.indices[:, 1]
    num_rows = projection.matrix_UV.shape[1]
    largest_V = jax.ops.segment_max(jax.lax.stop_gradient(logits_N), row_N, num_segments=num_rows)
    exp_N = jnp.exp(logits_N - largest_V[row_N])
    return exp_N / jax.ops.segment_sum(exp_N, row_N, num_segments=num_rows)[row_N]
