"""Control tokens pair by role where they stand between the same two chunks."""

from itertools import groupby

import numpy as np

from xtoken_jax.align.sides import Side


def control_chunks(
    chunks_4N: np.ndarray,
    student: Side,
    teacher: Side,
    student_offsets_B: np.ndarray,
    teacher_offsets_B: np.ndarray,
) -> np.ndarray:
    """Pairs of control tokens with a role in common, as chunks `[4, N]` of one token a side.

    Within one place they pair in order, each with the first that still fits.

    Args:
        chunks_4N: Chunks of content in order, `(a, b, c, d)` by token of the batch.
        student: Its control tokens.
        teacher: Likewise.
        student_offsets_B: Where each text begins in the batch.
        teacher_offsets_B: Likewise.
    """
    student_places_N = _places(student.control_N, chunks_4N[0], student_offsets_B)
    teacher_places_N = _places(teacher.control_N, chunks_4N[2], teacher_offsets_B)
    alone, student_at, teacher_at = _alone_on_both_sides(student_places_N, teacher_places_N)
    fits_N = (student.control_roles_N[student_at] & teacher.control_roles_N[teacher_at]) != 0
    pairs_N2 = [np.stack([student_at[fits_N], teacher_at[fits_N]], axis=1)]
    crowded = _pairs_in_crowds(
        _rest(student_places_N, student.control_roles_N, alone),
        _rest(teacher_places_N, teacher.control_roles_N, alone),
    )
    pairs_N2.append(np.array(crowded, np.int64).reshape(-1, 2))
    student_index_N, teacher_index_N = np.concatenate(pairs_N2).T
    a_N, c_N = student.control_N[student_index_N], teacher.control_N[teacher_index_N]
    pairs_4N = np.stack([a_N, a_N + 1, c_N, c_N + 1]).astype(chunks_4N.dtype)
    return pairs_4N[:, np.argsort(a_N)]


def _places(control_N: np.ndarray, chunk_starts_N: np.ndarray, offsets_B: np.ndarray) -> np.ndarray:
    """A number for each place between two chunks of one text, growing with the batch."""
    # Chunks before it, plus texts before it: the sum grows by one from text to text even where
    # no chunk lies between, so that no two texts share a place.
    chunks_before_N = np.searchsorted(chunk_starts_N, control_N)
    return chunks_before_N + np.searchsorted(offsets_B, control_N, side="right")


def _alone_on_both_sides(
    student_places_N: np.ndarray, teacher_places_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places with one control token on either side, and the indices of the two."""
    student_at, teacher_at = _alone(student_places_N), _alone(teacher_places_N)
    places, student_index, teacher_index = np.intersect1d(
        student_places_N[student_at],
        teacher_places_N[teacher_at],
        assume_unique=True,
        return_indices=True,
    )
    return places, student_at[student_index], teacher_at[teacher_index]


def _alone(places_N: np.ndarray) -> np.ndarray:
    """Indices of the values, of those in order, that occur once."""
    starts_N = np.diff(places_N, prepend=-1) != 0
    ends_N = np.diff(places_N, append=-1) != 0
    return np.flatnonzero(starts_N & ends_N)


def _rest(
    places_N: np.ndarray, roles_N: np.ndarray, alone: np.ndarray
) -> dict[int, list[tuple[int, int]]]:
    """Control tokens at other places: index and roles of each, by place."""
    index_N = np.flatnonzero(~np.isin(places_N, alone))
    columns = (places_N[index_N], index_N, roles_N[index_N])
    entries = zip(*(column.tolist() for column in columns), strict=True)
    return {
        place: [(index, roles) for _, index, roles in group]
        for place, group in groupby(entries, key=lambda entry: entry[0])
    }


def _pairs_in_crowds(
    student: dict[int, list[tuple[int, int]]], teacher: dict[int, list[tuple[int, int]]]
) -> list[tuple[int, int]]:
    pairs = []
    for place, tokens in student.items():
        candidates = teacher.get(place, [])
        for index, roles in tokens:
            for rank, (candidate, candidate_roles) in enumerate(candidates):
                if roles & candidate_roles:
                    pairs.append((index, candidate))
                    # What stands before the partner may no longer pair: chunks stay in order.
                    candidates = candidates[rank + 1 :]
                    break
    return pairs
