"""The DP path: texts whose two sides do not spell the same bytes."""

from typing import NamedTuple

import numpy as np

from xtoken_jax.align.dynamic import align_windows
from xtoken_jax.align.matching import Runs, Stream, equal_runs
from xtoken_jax.align.sides import Side


class _Cuts(NamedTuple):
    """Boundaries between tokens that lie in a run: tokens before it on each side, and the run."""

    student_N: np.ndarray
    teacher_N: np.ndarray
    run_N: np.ndarray


def differing_chunks(student: Side, teacher: Side) -> np.ndarray:
    """Chunks of texts that differ, `[N, 4]`, by content tokens of the sides.

    Within a stretch of equal bytes the tokens are cut at every shared boundary; the windows between
    such cuts are aligned by dynamic programming.
    """
    student_stream, teacher_stream = _stream(student), _stream(teacher)
    runs = equal_runs(
        student_stream,
        teacher_stream,
        student_stream.boundaries_N[student.offsets_B],
        teacher_stream.boundaries_N[teacher.offsets_B],
    )
    cuts = _shared_boundaries(runs, student_stream, teacher_stream)
    spans_N4 = np.stack(
        [cuts.student_N[:-1], cuts.student_N[1:], cuts.teacher_N[:-1], cuts.teacher_N[1:]], axis=1
    )
    is_chunk_N = np.diff(cuts.run_N) == 0
    has_both_N = (spans_N4[:, 0] < spans_N4[:, 1]) & (spans_N4[:, 2] < spans_N4[:, 3])
    windows_N4 = spans_N4[~is_chunk_N & has_both_N]
    chunks_N4 = np.concatenate([spans_N4[is_chunk_N], align_windows(student, teacher, windows_N4)])
    return chunks_N4[np.argsort(chunks_N4[:, 0], kind="stable")]


def _stream(side: Side) -> Stream:
    boundaries_N = np.concatenate([[0], np.cumsum(side.lengths_N, dtype=np.int64)])
    return Stream(side.bytes(), boundaries_N)


def _shared_boundaries(runs: Runs, student: Stream, teacher: Stream) -> _Cuts:
    low_N = np.searchsorted(student.boundaries_N, runs.student_N)
    high_N = np.searchsorted(student.boundaries_N, runs.student_N + runs.length_N, side="right")
    run_N = np.repeat(np.arange(len(low_N)), high_N - low_N)
    first_N = np.cumsum(high_N - low_N) - (high_N - low_N)
    student_N = np.arange(len(run_N)) + np.repeat(low_N - first_N, high_N - low_N)
    at_N = student.boundaries_N[student_N] + (runs.teacher_N - runs.student_N)[run_N]
    token_at_N = np.full(len(teacher.bytes_N) + 1, -1)
    token_at_N[teacher.boundaries_N] = np.arange(len(teacher.boundaries_N))
    teacher_N = token_at_N[at_N]
    is_shared_N = teacher_N >= 0
    return _Cuts(student_N[is_shared_N], teacher_N[is_shared_N], run_N[is_shared_N])
