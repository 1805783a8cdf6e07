"""Documents that are too long, cut where all sides have read the same text."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from xtoken_jax.data.example import Example, Lengths, TeacherTokens


def cut(example: Example, lengths: Lengths) -> Example | None:
    """The example, or as much of it as fits; None where that is nothing to learn.

    A text that is learnt whole keeps its beginning. Of another, where a prompt comes before what is
    learnt, the prompt loses its beginning but for a bos; the last part that is learnt stays whole.
    """
    sides = [len(example.student_ids), *(len(side.ids) for side in example.teachers.values())]
    room = [lengths.student, *(lengths.teachers[name] for name in example.teachers)]
    if all(size <= length for size, length in zip(sides, room, strict=True)):
        return example
    ends = shared_ends(example)
    if example.loss_mask.all():
        fits_N = (ends.tokens_NK <= room).all(axis=1)
        return _kept(example, ends.tokens_NK[fits_N][-1], _before) if fits_N.any() else None
    # Whatever stays of the beginning, the bos, needs room too.
    has_bos = [example.has_bos, *(side.has_bos for side in example.teachers.values())]
    rest_NK = np.array(sides) - ends.tokens_NK + np.array(has_bos)
    fits_N = (rest_NK <= room).all(axis=1) & (ends.tokens_NK[:, 0] <= _last_part(example))
    return _kept(example, ends.tokens_NK[fits_N][0], _behind) if fits_N.any() else None


def _last_part(example: Example) -> int:
    """Where the last unbroken stretch of tokens to be learnt begins."""
    learnt_N = np.flatnonzero(example.loss_mask)
    breaks_N = np.flatnonzero(np.diff(learnt_N) > 1)
    return int(learnt_N[breaks_N[-1] + 1] if breaks_N.size else learnt_N[0])


@dataclass(frozen=True)
class Ends:
    """Places in a text, in order, at which a token ends on every side.

    Attributes:
        tokens_NK: Tokens before each place, of the student and of each teacher.
    """

    tokens_NK: np.ndarray


def shared_ends(example: Example) -> Ends:
    """Where chunks of all teachers end; without teachers, where student tokens do."""
    ends_of = [_chunk_ends(tokens) for tokens in example.teachers.values()]
    shared_N = np.arange(1, len(example.student_ids) + 1)
    for student_N, _ in ends_of:
        shared_N = np.intersect1d(shared_N, student_N, assume_unique=True)
    columns = [teacher_N[np.searchsorted(student_N, shared_N)] for student_N, teacher_N in ends_of]
    return Ends(np.stack([shared_N, *columns], axis=1))


def _chunk_ends(tokens: TeacherTokens) -> tuple[np.ndarray, np.ndarray]:
    """Where each chunk ends on the student's side and on the teacher's."""
    student_N, teacher_N = (
        np.flatnonzero((chunk >= 0) & (np.append(chunk[1:], -1) != chunk)) + 1
        for chunk in (tokens.student_chunk, tokens.teacher_chunk)
    )
    return student_N, teacher_N


Keep = Callable[[int, int, bool], np.ndarray]


def _before(size: int, place: int, has_bos: bool) -> np.ndarray:
    return np.arange(place)


def _behind(size: int, place: int, has_bos: bool) -> np.ndarray:
    return np.concatenate([np.arange(int(has_bos)), np.arange(place, size)])


def _kept(example: Example, places_K: np.ndarray, keep: Keep) -> Example:
    """The tokens that `keep` picks on each side, by its size, a place, and whether it has a bos."""
    student_place, *teacher_places = places_K.tolist()
    kept_S = keep(len(example.student_ids), student_place, example.has_bos)
    teachers = {}
    for (name, tokens), place in zip(example.teachers.items(), teacher_places, strict=True):
        kept_T = keep(len(tokens.ids), place, tokens.has_bos)
        chunks = _renumbered(tokens.student_chunk[kept_S], tokens.teacher_chunk[kept_T])
        teachers[name] = replace(tokens, ids=tokens.ids[kept_T], **chunks)
    return replace(
        example,
        student_ids=example.student_ids[kept_S],
        loss_mask=example.loss_mask[kept_S],
        teachers=teachers,
        is_cut=True,
    )


def _renumbered(student_chunk: np.ndarray, teacher_chunk: np.ndarray) -> dict[str, np.ndarray]:
    """Chunks that both sides still have, counted from 0; no chunk is cut in two."""
    both_N = np.intersect1d(student_chunk, teacher_chunk)
    both_N = both_N[both_N >= 0]

    def renumbered(chunk: np.ndarray) -> np.ndarray:
        number = np.searchsorted(both_N, chunk)
        return np.where(np.isin(chunk, both_N), number, -1).astype(np.int32)

    return {
        "student_chunk": renumbered(student_chunk),
        "teacher_chunk": renumbered(teacher_chunk),
    }
