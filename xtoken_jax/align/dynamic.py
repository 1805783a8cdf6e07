r"""Needleman-Wunsch over windows of tokens that do not spell the same.

.. math:: D(i, j) = \max \begin{cases}
    D(i-1, j-1) + 3 & \text{equal tokens} \\
    D(i-1, j-k) + 1.5 k & \text{one student token, } k \le 4 \text{ teacher tokens} \\
    D(i-k, j-1) + 1.5 k & \text{the reverse} \\
    D(i-1, j) - 1.5, \; D(i, j-1) - 1.5 & \text{a gap in the teacher, in the student}
    \end{cases}

A mismatch, -3, is two gaps and needs no case of its own. Ties prefer a match, then a gap in the
teacher (a student token alone), then one in the student, then combinations, shorter first.

Adding 1.5 for each token passed makes gaps free, so that a row of the table is a running maximum;
in units of 1.5 a match then gains 4 and a combination 2k + 1, all integers.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from xtoken_jax.align.sides import Side
from xtoken_jax.align.tables import power

_MAX_COMBINED = 4
# Cells of one window's table: larger windows are first cut into pieces along their diagonal.
_MAX_WINDOW_CELLS = 1 << 20
_MAX_BATCH_CELLS = 1 << 22  # 20 MB


def align_windows(student: Side, teacher: Side, windows_W4: np.ndarray) -> np.ndarray:
    """Chunks of windows `(a, b, c, d)` of student tokens `a:b` and teacher tokens `c:d`.

    Windows of similar shape are aligned together. Exact for windows of up to 2**20 pairs of
    tokens; a larger one is cut in proportion on both sides, which bounds time and memory.

    Returns:
        `[N, 4]`, in no order.
    """
    if not len(windows_W4):
        return np.zeros((0, 4), np.int64)
    found = [
        _align_batch(_spans(student, batch[:, :2]), _spans(teacher, batch[:, 2:]), batch)
        for batch in _batches(_cut_to_size(windows_W4))
    ]
    return np.concatenate(found)


def _cut_to_size(windows_W4: np.ndarray) -> np.ndarray:
    """The same windows, those with too many cells in pieces along the diagonal."""
    student_W, teacher_W = windows_W4[:, 1] - windows_W4[:, 0], windows_W4[:, 3] - windows_W4[:, 2]
    pieces_W = np.ceil(np.sqrt(student_W * teacher_W / _MAX_WINDOW_CELLS)).astype(np.int64)
    large_W = pieces_W > 1
    parts = [windows_W4[~large_W]]
    for (a, b, c, d), pieces in zip(windows_W4[large_W], pieces_W[large_W], strict=True):
        student_edges = np.linspace(a, b, pieces + 1).astype(np.int64)
        teacher_edges = np.linspace(c, d, pieces + 1).astype(np.int64)
        edges = (student_edges[:-1], student_edges[1:], teacher_edges[:-1], teacher_edges[1:])
        parts.append(np.stack(edges, axis=1))
    return np.concatenate(parts)


def _batches(windows_W4: np.ndarray) -> Iterator[np.ndarray]:
    """Groups of windows whose sides agree when rounded up to powers of two."""
    sizes_W2 = np.maximum(windows_W4[:, 1::2] - windows_W4[:, ::2], 1)
    shapes_W2 = 1 << np.ceil(np.log2(sizes_W2)).astype(np.int64)
    order_W = np.lexsort(shapes_W2.T)
    starts = np.flatnonzero(np.diff(shapes_W2[order_W], axis=0, prepend=0).any(axis=1))
    for start, stop in zip(starts, np.append(starts[1:], len(order_W)), strict=True):
        per_batch = max(1, _MAX_BATCH_CELLS // int(shapes_W2[order_W[start]].prod()))
        for low in range(start, stop, per_batch):
            yield windows_W4[order_W[low : min(low + per_batch, stop)]]


class _Spans(NamedTuple):
    """Hashes of `k` tokens in a row by the last of them, `[4, W, n]`, and tokens per window."""

    hashes_KWN: np.ndarray
    counts_W: np.ndarray


def _spans(side: Side, bounds_W2: np.ndarray) -> _Spans:
    counts_W = bounds_W2[:, 1] - bounds_W2[:, 0]
    # What lies past a window's end is never read: every span counted ends inside it.
    index_WN = bounds_W2[:, :1] + np.arange(counts_W.max())
    index_WN = np.minimum(index_WN, len(side.keys_N) - 1)
    token_WN = side.table.hashes_K[side.keys_N[index_WN]]
    length_WN = side.lengths_N[index_WN].astype(np.int64)
    hashes, total_WN = [token_WN], length_WN
    for _ in range(_MAX_COMBINED - 1):
        before_WN = np.roll(hashes[-1], 1, axis=1)
        hashes.append(before_WN + token_WN * power(np.roll(total_WN, 1, axis=1)))
        total_WN = np.roll(total_WN, 1, axis=1) + length_WN
    return _Spans(np.stack(hashes), counts_W)


def _gain(width: int) -> int:
    return 4 if width == 1 else 2 * width + 1


# Tokens that a chunk takes on each side, in order of preference.
_WIDTHS = [(1, 1), *(pair for k in range(2, _MAX_COMBINED + 1) for pair in ((1, k), (k, 1)))]


class _Table(NamedTuple):
    """The best alignment of every prefix pair of each window, as a way back.

    Attributes:
        last_WIJ: int32, the cell `i * (m + 1) + j` where the last chunk of that alignment ends; 0
            for none.
        widths_WIJ: int8, at such cells which of `_WIDTHS` the chunk has.
    """

    last_WIJ: np.ndarray
    widths_WIJ: np.ndarray


def _align_batch(student: _Spans, teacher: _Spans, windows_W4: np.ndarray) -> np.ndarray:
    table = _table(student, teacher)
    num_columns = table.last_WIJ.shape[2]
    widths = np.array(_WIDTHS)
    window_W = np.arange(len(windows_W4))
    i_W, j_W = student.counts_W, teacher.counts_W
    found = []
    while True:  # from the ends of all windows back, a chunk in each at a time
        cell_W = table.last_WIJ[window_W, i_W, j_W]
        window_W, cell_W = window_W[cell_W > 0], cell_W[cell_W > 0]
        if not window_W.size:
            break
        ends_2W = np.stack(np.divmod(cell_W, num_columns))
        starts_2W = ends_2W - widths[table.widths_WIJ[window_W, *ends_2W]].T
        i_W, j_W = starts_2W
        origin_2W = windows_W4[window_W, ::2].T
        found.append(np.stack([starts_2W, ends_2W], axis=1) + origin_2W[:, None])
    chunks = np.concatenate(found, axis=2) if found else np.zeros((2, 2, 0), np.int64)
    return chunks.reshape(4, -1).T


def _table(student: _Spans, teacher: _Spans) -> _Table:
    _, num_windows, num_rows = student.hashes_KWN.shape
    num_columns = teacher.hashes_KWN.shape[2]
    shape = (num_windows, num_rows + 1, num_columns + 1)
    table = _Table(np.zeros(shape, np.int32), np.zeros(shape, np.int8))
    # D + 1.5 (i + j) in units of 1.5: rows i, i - 1, ..., as far back as a chunk reaches.
    rows = [np.zeros((num_windows, num_columns + 1), np.int16)]
    columns = np.arange(num_columns + 1, dtype=np.int32)
    for i in range(1, num_rows + 1):
        options = list(_chunks_ending_in_row(student, teacher, rows, i))
        if not options:
            table.last_WIJ[:, i] = table.last_WIJ[:, i - 1]
            rows = [rows[0], *rows[: _MAX_COMBINED - 1]]
            continue
        row_WJ = rows[0].copy()
        for _, end_WJ, gained_WJ in options:
            np.maximum(row_WJ, np.where(end_WJ, gained_WJ, 0), out=row_WJ)
        np.maximum.accumulate(row_WJ, axis=1, out=row_WJ)
        # Ties: a match, a gap in the teacher, one in the student, a combination.
        skips_student_WJ = rows[0] == row_WJ
        is_reached_WJ = skips_student_WJ.copy()
        is_reached_WJ[:, 1:] |= row_WJ[:, :-1] == row_WJ[:, 1:]
        ends_here_WJ = np.zeros_like(is_reached_WJ)
        for width, end_WJ, gained_WJ in options:
            chosen_WJ = end_WJ & (gained_WJ == row_WJ) & ~ends_here_WJ
            if _WIDTHS[width] != (1, 1):
                chosen_WJ &= ~is_reached_WJ
            table.widths_WIJ[:, i][chosen_WJ] = width
            ends_here_WJ |= chosen_WJ
        last_WJ = np.where(ends_here_WJ, i * (num_columns + 1) + columns, table.last_WIJ[:, i - 1])
        # Where neither holds, the teacher's token is alone: as in the column before.
        is_known_WJ = ends_here_WJ | skips_student_WJ
        source_WJ = np.maximum.accumulate(np.where(is_known_WJ, columns, 0), axis=1)
        table.last_WIJ[:, i] = np.take_along_axis(last_WJ, source_WJ, axis=1)
        rows = [row_WJ, *rows[: _MAX_COMBINED - 1]]
    return table


def _chunks_ending_in_row(
    student: _Spans, teacher: _Spans, rows: list[np.ndarray], i: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Of each of `_WIDTHS` that occurs: its index, where such a chunk ends, and what D is then."""
    num_columns = teacher.hashes_KWN.shape[2]
    for width, (student_width, teacher_width) in enumerate(_WIDTHS):
        if student_width > i or teacher_width > num_columns:
            continue
        student_W1 = student.hashes_KWN[student_width - 1, :, i - 1, None]
        same_WJ = teacher.hashes_KWN[teacher_width - 1, :, teacher_width - 1 :] == student_W1
        if same_WJ.any():
            before_WJ = rows[student_width - 1]
            ends_WJ = np.zeros(before_WJ.shape, bool)
            ends_WJ[:, teacher_width:] = same_WJ
            gained_WJ = np.roll(before_WJ, teacher_width, axis=1)
            yield width, ends_WJ, gained_WJ + np.int16(_gain(max(student_width, teacher_width)))
