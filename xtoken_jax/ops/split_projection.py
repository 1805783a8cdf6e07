"""W in two parts: tokens that stand for each other alone, and the rest."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.ops.gather_sum import GatherSum, gather_sum

# Entries of a row of the rest that the first gather takes.
_FIRST_OF_COLUMN = 2
_FIRST_OF_ROW = 4

# How far from 1 float32 leaves the sum of a row.
_ROUNDING = 1e-5


class SplitProjection(NamedTuple):
    """W for losses that read the teacher's logits in the student's rows.

    Most tokens are exact: a student token whose whole weight goes to one teacher token that gets
    weight from no other. There `log z` is a log-probability of the student's, and the whole loss
    one gather of the teacher's logits. The other entries, a third of W at most and few columns,
    are a small W of their own.

    Attributes:
        exact_teacher_V: The other half of each exact student token; for other tokens any teacher
            token that is reached, so that the largest logit gathered is one of those.
        is_exact_V: True for exact student tokens.
        rest_column_R: Teacher tokens that are reached, but not exactly, ascending.
        rest_to_column: `W^T p` of those.
        rest_to_row: W of the student tokens that reach them, and an empty row after the last.
        rest_row_V: Row in `rest_to_row` of each student token, the empty one for exact tokens.
        empty_row_M: Student tokens whose row of W is empty, and so carry no mass.
        carries_V: 0 for those, else 1.
        lost_column_L: Teacher tokens that are not reached at all.
    """

    exact_teacher_V: Int[Array, " V"]
    is_exact_V: Bool[Array, " V"]
    rest_column_R: Int[Array, " R"]
    rest_to_column: GatherSum
    rest_to_row: GatherSum
    rest_row_V: Int[Array, " V"]
    empty_row_M: Int[Array, " M"]
    carries_V: Float[Array, " V"]
    lost_column_L: Int[Array, " L"]


def split_projection(
    row_N: np.ndarray,
    column_N: np.ndarray,
    weights_N: np.ndarray,
    *,
    num_rows: int,
    reachable_U: np.ndarray,
) -> SplitProjection | None:
    """Split the stored entries of W, on the host.

    Args:
        row_N: Student token of each entry.
        column_N: Its teacher token.
        weights_N: Its weight.
        num_rows: Rows of the student's unembedding.
        reachable_U: True for the teacher tokens that W puts mass on; as long as its tokenizer.

    Returns:
        None where rows do not sum to 1, or where every token is exact.
    """
    counts_V = np.bincount(row_N, minlength=num_rows)
    counts_U = np.bincount(column_N, minlength=len(reachable_U))
    is_exact_N = (counts_V[row_N] == 1) & (counts_U[column_N] == 1) & (weights_N == 1)
    rest = ~is_exact_N
    sums_V = np.bincount(row_N, weights_N, minlength=num_rows)
    if not rest.any() or np.abs(sums_V - (counts_V > 0)).max() > _ROUNDING:
        return None
    exact_teacher_V = np.full(num_rows, column_N[0], np.int32)
    exact_teacher_V[row_N[is_exact_N]] = column_N[is_exact_N]
    is_exact_V = np.zeros(num_rows, bool)
    is_exact_V[row_N[is_exact_N]] = True

    rest_columns_R, place_N = np.unique(column_N[rest], return_inverse=True)
    rest_rows_Q, rest_row_N = np.unique(row_N[rest], return_inverse=True)
    rest_row_V = np.full(num_rows, len(rest_rows_Q), np.int32)
    rest_row_V[rest_rows_Q] = np.arange(len(rest_rows_Q))
    return SplitProjection(
        jnp.asarray(exact_teacher_V),
        jnp.asarray(is_exact_V),
        jnp.asarray(rest_columns_R, jnp.int32),
        gather_sum(
            place_N,
            row_N[rest],
            weights_N[rest],
            num_rows=len(rest_columns_R),
            num_first=_FIRST_OF_COLUMN,
        ),
        gather_sum(
            rest_row_N,
            place_N,
            weights_N[rest],
            num_rows=len(rest_rows_Q) + 1,
            num_first=_FIRST_OF_ROW,
        ),
        jnp.asarray(rest_row_V),
        jnp.asarray(np.flatnonzero(counts_V == 0), jnp.int32),
        jnp.asarray(counts_V > 0, jnp.float32),
        jnp.asarray(np.flatnonzero(~reachable_U), jnp.int32),
    )
