"""Stretches of equal bytes in texts that differ: anchors, then their extension to both ends.

An anchor is a run of bytes that begins a token on both sides and occurs equally often on both
sides of the stretch in question, mostly once, as in patience diff. Of anchors that cross, the
longest chain in order is kept.
"""

from bisect import bisect_left
from typing import NamedTuple

import numpy as np

# Bytes of an anchor, and the least product of the two sides' bytes for which a stretch is
# searched: what is smaller is left to the dynamic programme, which needs no luck.
_LEVELS = ((16, 1 << 10), (8, 1 << 14), (4, 1 << 24))
_MIXERS = tuple(np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F))


class Stream(NamedTuple):
    """One side: its bytes, and where its tokens begin, with the end of the last as one more."""

    bytes_N: np.ndarray
    boundaries_N: np.ndarray


class Runs(NamedTuple):
    """Equal bytes: `length` of them from `student` on in one stream, `teacher` in the other."""

    student_N: np.ndarray
    teacher_N: np.ndarray
    length_N: np.ndarray


def equal_runs(
    student: Stream, teacher: Stream, student_edges_N: np.ndarray, teacher_edges_N: np.ndarray
) -> Runs:
    """Runs of equal bytes, in order and disjoint on both sides.

    Args:
        student: The first stream.
        teacher: The second.
        student_edges_N: Where texts begin and end; at each is a run, of no bytes if need be.
        teacher_edges_N: Their partners.
    """
    runs = Runs(student_edges_N, teacher_edges_N, np.zeros(len(student_edges_N), np.int64))
    runs = _extended(runs, student.bytes_N, teacher.bytes_N)
    for size, least in _LEVELS:
        anchors = _anchors(runs, student, teacher, size, least)
        if anchors.length_N.size:
            together = [np.concatenate(pair) for pair in zip(runs, anchors, strict=True)]
            order = np.lexsort(together[::-1])
            runs = Runs(*(part[order] for part in together))
            runs = _extended(runs, student.bytes_N, teacher.bytes_N)
    return runs


def _anchors(runs: Runs, student: Stream, teacher: Stream, size: int, least: int) -> Runs:
    """Anchors of `size` bytes between the runs."""
    starts = [runs.student_N[:-1] + runs.length_N[:-1], runs.teacher_N[:-1] + runs.length_N[:-1]]
    stops = [runs.student_N[1:], runs.teacher_N[1:]]
    widths = [stop - start for start, stop in zip(starts, stops, strict=True)]
    wanted = np.flatnonzero((widths[0] * widths[1] > least) & (np.minimum(*widths) >= size))
    grams = [
        _grams(stream, start[wanted], stop[wanted], size)
        for stream, start, stop in zip((student, teacher), starts, stops, strict=True)
    ]
    at = _in_both_as_often(grams[0].keys_N, grams[1].keys_N)
    same_N = (grams[0].words_N[at[0]] == grams[1].words_N[at[1]]).all(axis=1)
    student_N = grams[0].positions_N[at[0][same_N]]
    teacher_N = grams[1].positions_N[at[1][same_N]]
    order = np.argsort(student_N, kind="stable")
    chain = _longest_increasing(teacher_N[order])
    return _joined(student_N[order][chain], teacher_N[order][chain], size)


class _Grams(NamedTuple):
    positions_N: np.ndarray
    words_N: np.ndarray
    keys_N: np.ndarray


def _grams(stream: Stream, starts_N: np.ndarray, stops_N: np.ndarray, size: int) -> _Grams:
    """The first `size` bytes of every token that has so many before its stretch ends.

    Keys of different stretches differ, and keys of different bytes all but surely.
    """
    low_N = np.searchsorted(stream.boundaries_N, starts_N)
    high_N = np.maximum(np.searchsorted(stream.boundaries_N, stops_N - size, side="right"), low_N)
    stretch_N = np.repeat(np.arange(len(starts_N)), high_N - low_N)
    positions_N = stream.boundaries_N[_ranges(low_N, high_N - low_N)]
    if not positions_N.size:
        none = np.zeros((0, 1), np.uint64)
        return _Grams(positions_N, none, none[:, 0])
    views = np.lib.stride_tricks.sliding_window_view(stream.bytes_N, size)
    words_N = views[positions_N].view(np.uint64 if size >= 8 else np.uint32).astype(np.uint64)
    keys_N = stretch_N.astype(np.uint64) * _MIXERS[1]
    for column in words_N.T:
        keys_N = (keys_N ^ column) * _MIXERS[0]
        keys_N ^= keys_N >> np.uint64(29)
    return _Grams(positions_N, words_N, keys_N)


def _ranges(starts_N: np.ndarray, counts_N: np.ndarray) -> np.ndarray:
    """`starts[i], starts[i] + 1, ...`, as many as `counts[i]`, for every `i` in turn."""
    ends_N = np.cumsum(counts_N)
    total = int(ends_N[-1]) if ends_N.size else 0
    return np.arange(total) + np.repeat(starts_N - (ends_N - counts_N), counts_N)


def _in_both_as_often(
    student_keys_N: np.ndarray, teacher_keys_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of indices of equal keys: the first of one side with the first of the other, and so on.

    Only keys that occur equally often on both sides; most occur once.
    """
    keys_N = np.concatenate([student_keys_N, teacher_keys_N])
    # The index in the low bits, so that a plain sort, much faster than an argsort, leaves equal
    # keys in the order of the text, the student's first.
    low = np.uint64((1 << len(keys_N).bit_length()) - 1)
    keys_N = np.sort((keys_N & ~low) | np.arange(len(keys_N), dtype=np.uint64))
    order_N = (keys_N & low).astype(np.int64)
    keys_N &= ~low
    group_N = np.cumsum(np.diff(keys_N, prepend=keys_N[:1]) != 0)
    is_student_N = order_N < len(student_keys_N)
    surplus = np.bincount(group_N, weights=np.where(is_student_N, 1, -1))
    kept_N = surplus[group_N] == 0
    student_at, teacher_at = order_N[kept_N & is_student_N], order_N[kept_N & ~is_student_N]
    return student_at, teacher_at - len(student_keys_N)


def _longest_increasing(values_N: np.ndarray) -> np.ndarray:
    """Indices of a longest strictly increasing subsequence."""
    if (np.diff(values_N) > 0).all():
        return np.arange(len(values_N))
    tails: list[int] = []  # least last value of a subsequence of each length
    tail_index: list[int] = []
    before = [-1] * len(values_N)
    for index, value in enumerate(values_N.tolist()):
        length = bisect_left(tails, value)
        if length == len(tails):
            tails.append(value)
            tail_index.append(index)
        else:
            tails[length], tail_index[length] = value, index
        before[index] = tail_index[length - 1] if length else -1
    chain, index = [], tail_index[-1]
    while index >= 0:
        chain.append(index)
        index = before[index]
    return np.array(chain[::-1])


def _joined(student_N: np.ndarray, teacher_N: np.ndarray, size: int) -> Runs:
    """Runs from the starts of anchors, overlapping ones on one diagonal as one."""
    continues_N = np.zeros(len(student_N), bool)
    steps_N = np.diff(student_N)
    continues_N[1:] = (steps_N == np.diff(teacher_N)) & (steps_N <= size)
    first_N = np.flatnonzero(~continues_N)
    last_N = np.append(first_N[1:], len(student_N))[: len(first_N)] - 1
    length_N = student_N[last_N] + size - student_N[first_N]
    # Neighbours on different diagonals may overlap by a few bytes.
    for position_N in (student_N[first_N], teacher_N[first_N]):
        length_N[:-1] = np.minimum(length_N[:-1], np.diff(position_N))
    return Runs(student_N[first_N], teacher_N[first_N], length_N)


def _extended(runs: Runs, student_bytes_N: np.ndarray, teacher_bytes_N: np.ndarray) -> Runs:
    """Every run as far to the right, then to the left, as bytes agree and its neighbours allow."""
    student_N, teacher_N, length_N = (part.copy() for part in runs)
    room_N = np.minimum(
        student_N[1:] - student_N[:-1] - length_N[:-1],
        teacher_N[1:] - teacher_N[:-1] - length_N[:-1],
    )
    ends_N = student_N[:-1] + length_N[:-1], teacher_N[:-1] + length_N[:-1]
    right_N = _common_length(student_bytes_N, teacher_bytes_N, *ends_N, room_N, step=1)
    length_N[:-1] += right_N
    starts_N = student_N[1:] - 1, teacher_N[1:] - 1
    left_N = _common_length(student_bytes_N, teacher_bytes_N, *starts_N, room_N - right_N, step=-1)
    student_N[1:] -= left_N
    teacher_N[1:] -= left_N
    length_N[1:] += left_N
    touches_N = (np.diff(student_N) == length_N[:-1]) & (np.diff(teacher_N) == length_N[:-1])
    first_N = np.flatnonzero(np.concatenate([[True], ~touches_N]))
    return Runs(student_N[first_N], teacher_N[first_N], np.add.reduceat(length_N, first_N))


def _common_length(
    student_bytes_N: np.ndarray,
    teacher_bytes_N: np.ndarray,
    student_at_N: np.ndarray,
    teacher_at_N: np.ndarray,
    limit_N: np.ndarray,
    *,
    step: int,
) -> np.ndarray:
    """How many bytes agree from two positions on, in the direction of `step`, up to a limit."""
    length_N = np.zeros_like(limit_N)
    active = np.flatnonzero(limit_N > 0)
    width = 32
    while active.size:
        reach = length_N[active, None] + np.arange(width)
        is_inside = reach < limit_N[active, None]
        shift = step * np.where(is_inside, reach, 0)
        same = is_inside & (
            student_bytes_N[student_at_N[active, None] + shift]
            == teacher_bytes_N[teacher_at_N[active, None] + shift]
        )
        agreed = np.where(same.all(axis=1), width, same.argmin(axis=1))
        length_N[active] += agreed
        active = active[agreed == width]
        # Wider as fewer go on, so that neither many short nor one long run takes many rounds.
        width = min(2 * width, max(32, (1 << 20) // max(1, len(active))))
    return length_N
