"""Sparse matrices as gathers of whole rows."""

import functools
import operator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Entries that each further gather sums before they are scattered.
_CHUNK = 8


class Slots(NamedTuple):
    """Entries of a sparse matrix in a table, a few of one row side by side.

    Attributes:
        ids_RJ: What each entry multiplies; 0 in a slot without an entry.
        weights_RJ: By how much; 0 there.
        entries_RJ: Its place among the stored entries; one past the last there.
    """

    ids_RJ: Int[Array, "R J"]
    weights_RJ: Float[Array, "R J"]
    entries_RJ: Int[Array, "R J"]


class GatherSum(NamedTuple):
    """A sparse matrix as sums of gathered rows.

    A gather of whole rows runs at the speed of memory, a scatter of as many is several times
    slower, so all that is scattered is what `chunks` leave of rows with many entries.

    Attributes:
        first: The first entries of every row.
        chunks: What some rows have beyond; a row may have many chunks.
        chunk_rows_C: The row of each chunk, ascending.
    """

    first: Slots
    chunks: Slots
    chunk_rows_C: Int[Array, " C"]


def gather_sum(
    row_N: np.ndarray, id_N: np.ndarray, weights_N: np.ndarray, *, num_rows: int, num_first: int
) -> GatherSum:
    """Lay stored entries out in tables, by their rows, on the host.

    Args:
        row_N: Row of each entry, in any order.
        id_N: What it multiplies.
        weights_N: By how much.
        num_rows: Rows of the result.
        num_first: Entries of a row that the first gather takes.
    """
    counts_R = np.bincount(row_N, minlength=num_rows)
    chunks_R = -(-np.maximum(counts_R - num_first, 0) // _CHUNK)
    entry_N = np.argsort(row_N, kind="stable")
    row_N = row_N[entry_N]
    rank_N = np.arange(len(row_N)) - (np.cumsum(counts_R) - counts_R)[row_N]
    chunk_N = (np.cumsum(chunks_R) - chunks_R)[row_N] + (rank_N - num_first) // _CHUNK
    is_first_N = rank_N < num_first

    def slots(num_slots, keep_N, place_N, rank_N):
        entries_RJ = np.full(num_slots, len(entry_N), np.int32)
        entries_RJ[place_N[keep_N], rank_N[keep_N]] = entry_N[keep_N]
        return Slots(
            jnp.asarray(np.append(id_N, 0)[entries_RJ], jnp.int32),
            jnp.asarray(np.append(weights_N, 0)[entries_RJ], jnp.float32),
            jnp.asarray(entries_RJ),
        )

    return GatherSum(
        slots((num_rows, num_first), is_first_N, row_N, rank_N),
        slots((chunks_R.sum(), _CHUNK), ~is_first_N, chunk_N, (rank_N - num_first) % _CHUNK),
        jnp.asarray(np.repeat(np.arange(num_rows), chunks_R), jnp.int32),
    )


def gathered(values_VN: Float[Array, "V N"], matrix: GatherSum) -> Float[Array, "R N"]:
    """The product of the matrix with columns of values."""
    result_RN = _weighted_rows(values_VN, matrix.first)
    if not matrix.chunk_rows_C.size:
        return result_RN
    chunks_CN = _weighted_rows(values_VN, matrix.chunks)
    return result_RN.at[matrix.chunk_rows_C].add(chunks_CN, indices_are_sorted=True)


def _weighted_rows(values_VN, slots):
    terms = (
        slots.weights_RJ[:, j, None] * values_VN[slots.ids_RJ[:, j]]
        for j in range(slots.ids_RJ.shape[1])
    )
    return functools.reduce(operator.add, terms)
