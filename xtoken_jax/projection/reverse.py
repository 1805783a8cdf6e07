"""The reverse pass: teacher tokens that no student token equals, spelled by the student."""

import numpy as np

from xtoken_jax.projection.options import BuildOptions
from xtoken_jax.projection.retokenise import Pieces, retokenise
from xtoken_jax.projection.weights import normalised, rows_of_pieces
from xtoken_jax.text import ByteTokenizer


def add_reverse_pass(
    ids_VK: np.ndarray,
    weights_VK: np.ndarray,
    student: ByteTokenizer,
    teacher: ByteTokenizer,
    pieces: Pieces,
    options: BuildOptions,
) -> None:
    r"""Let student tokens reach the teacher tokens that they begin or help to spell, in place.

    A teacher token t without an equal student token is re-tokenised by the student into
    :math:`\sigma_0, \sigma_1, \ldots`, weighted as a row of W is, and :math:`W[\sigma_i, t]` grows
    by the weight of its piece. Rows of exact and of control tokens stay as they are. Of a changed
    row the K largest entries stay, ties to the lower teacher id, and are normalised.

    Source: NeMo-RL, where a later step pins exact rows to their one entry.
    """
    backward = retokenise(teacher, student, canonicalization=options.canonicalization)
    student_ids_UK, weights_UK = rows_of_pieces(backward, options)
    is_ordinary_U = np.array([bool(content) for content in teacher.token_bytes])
    is_new_U = is_ordinary_U & ~backward.exact_V
    # Position 0 is always open to look up, since pads are masked out by the first factor.
    is_open_UK = (student_ids_UK >= 0) & ~pieces.exact_V[student_ids_UK] & is_new_U[:, None]
    teacher_ids_N, _ = np.nonzero(is_open_UK)
    add_entries(
        ids_VK, weights_VK, student_ids_UK[is_open_UK], teacher_ids_N, weights_UK[is_open_UK]
    )


def add_entries(
    ids_VK: np.ndarray,
    weights_VK: np.ndarray,
    student_ids_N: np.ndarray,
    teacher_ids_N: np.ndarray,
    weights_N: np.ndarray,
) -> None:
    """Add to entries of W, keep the K largest of each changed row and normalise it, in place."""
    changed_R = np.unique(student_ids_N)
    stored_RK = ids_VK[changed_R] >= 0
    rows_N = np.concatenate([np.nonzero(stored_RK)[0], np.searchsorted(changed_R, student_ids_N)])
    columns_N = np.concatenate([ids_VK[changed_R][stored_RK], teacher_ids_N])
    added_N = np.concatenate([weights_VK[changed_R][stored_RK], weights_N])
    num_columns = int(columns_N.max(initial=0)) + 1
    cells_N, cell_of_N = np.unique(rows_N * num_columns + columns_N, return_inverse=True)
    totals_N = np.bincount(cell_of_N, added_N)
    rows_N, columns_N = np.divmod(cells_N, num_columns)
    order_N = np.lexsort((columns_N, -totals_N, rows_N))
    rank_N = np.arange(len(rows_N)) - np.searchsorted(rows_N, rows_N)  # rows are in order
    kept_N = rank_N < ids_VK.shape[1]
    order_N, rows_N, rank_N = order_N[kept_N], rows_N[kept_N], rank_N[kept_N]
    new_ids_RK = np.full(stored_RK.shape, -1, np.int32)
    new_weights_RK = np.zeros(stored_RK.shape)
    new_ids_RK[rows_N, rank_N] = columns_N[order_N]
    new_weights_RK[rows_N, rank_N] = totals_N[order_N]
    weights_VK[changed_R] = normalised(new_ids_RK, new_weights_RK)
    ids_VK[changed_R] = new_ids_RK
