"""From documents to token ids of the student and of each teacher, with their chunks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xtoken_jax.align import align
from xtoken_jax.data.sources import Document
from xtoken_jax.errors import XTokenError
from xtoken_jax.text import ByteTokenizer


@dataclass(frozen=True)
class TeacherTokens:
    """One teacher's side of a document, and how it meets the student's.

    Attributes:
        ids: int32.
        student_chunk: Chunk of each student token, counted from 0, -1 for none.
        teacher_chunk: Chunk of each of this teacher's tokens.
    """

    ids: np.ndarray
    student_chunk: np.ndarray
    teacher_chunk: np.ndarray


@dataclass(frozen=True)
class Example:
    """One document on all sides.

    Attributes:
        student_ids: int32.
        teachers: By name; each has its own chunks on the student's tokens.
        record: Where the document came from.
    """

    student_ids: np.ndarray
    teachers: dict[str, TeacherTokens]
    record: str


@dataclass(frozen=True)
class Lengths:
    """Tokens that a row has, by side."""

    student: int
    teachers: Mapping[str, int]

    def __str__(self) -> str:
        sides = [f"{self.student} student tokens"]
        sides += [f"{length} tokens of {name}" for name, length in self.teachers.items()]
        return " and ".join(sides)


def make_examples(
    documents: Sequence[Document],
    student: ByteTokenizer,
    teachers: Mapping[str, ByteTokenizer],
    *,
    student_length: int,
    teacher_lengths: Mapping[str, int],
) -> list[Example]:
    """Tokenise and align documents, each begun and ended as its side's tokenizer does.

    A document that is too long on some side is cut after the last place that fits on all and at
    which a chunk of every teacher ends, so that all sides keep the same text. One without such a
    place is left out.

    Args:
        documents: At least one.
        student: The student's tokenizer.
        teachers: Each teacher's tokenizer, by name; none for cross-entropy alone.
        student_length: Most student tokens of an example.
        teacher_lengths: Most tokens of each teacher.

    Raises:
        XTokenError: there are no documents, or none is left.
        ValueError: a teacher has no length, or a length no teacher.
    """
    if not documents:
        raise XTokenError("data must hold at least one document, got none")
    lengths = Lengths(student_length, teacher_lengths)
    examples = [cut(example, lengths) for example in _whole_examples(documents, student, teachers)]
    kept = [example for example in examples if example is not None]
    if not kept:
        raise XTokenError(f"no document has a chunk that fits in {lengths}")
    return kept


def _whole_examples(
    documents: Sequence[Document], student: ByteTokenizer, teachers: Mapping[str, ByteTokenizer]
) -> list[Example]:
    texts = [document.text for document in documents]
    student_encoded = student.encode(texts, bos=True, eos=True)
    teacher_tokens: list[dict[str, TeacherTokens]] = [{} for _ in documents]
    for name, teacher in teachers.items():
        teacher_encoded = teacher.encode(texts, bos=True, eos=True)
        alignment = align(student_encoded, teacher_encoded, student, teacher)
        for index, tokens in enumerate(teacher_tokens):
            ids = teacher_encoded[index]
            student_chunk = chunk_of_token(alignment[index][:, :2], len(student_encoded[index]))
            teacher_chunk = chunk_of_token(alignment[index][:, 2:], len(ids))
            tokens[name] = TeacherTokens(ids, student_chunk, teacher_chunk)
    return [
        Example(student_encoded[index], teacher_tokens[index], document.record)
        for index, document in enumerate(documents)
    ]


def chunk_of_token(spans_N2: np.ndarray, num_tokens: int) -> np.ndarray:
    """The chunk of each token of one side, -1 for none, from the spans of the chunks."""
    chunk = np.full(num_tokens, -1, np.int32)
    lengths_N = spans_N2[:, 1] - spans_N2[:, 0]
    starts_N = np.cumsum(lengths_N) - lengths_N
    within_N = np.arange(int(lengths_N.sum())) - np.repeat(starts_N, lengths_N)
    tokens_N = np.repeat(spans_N2[:, 0], lengths_N) + within_N
    chunk[tokens_N] = np.repeat(np.arange(len(spans_N2), dtype=np.int32), lengths_N)
    return chunk


def cut(example: Example, lengths: Lengths) -> Example | None:
    """The example, or as much of its beginning as fits; None where no chunk does."""
    sizes = {name: len(tokens.ids) for name, tokens in example.teachers.items()}
    if sizes.keys() != lengths.teachers.keys():
        raise ValueError(
            f"`teacher_lengths` must be of {sorted(sizes)}, got {sorted(lengths.teachers)}"
        )
    if not len(example.student_ids):
        return None
    fits = len(example.student_ids) <= lengths.student
    if fits and all(sizes[name] <= lengths.teachers[name] for name in sizes):
        return example
    ends = shared_ends(example)
    is_within_N = ends.student_N <= lengths.student
    for name, teacher_N in ends.teachers.items():
        is_within_N &= teacher_N <= lengths.teachers[name]
    within_N = np.flatnonzero(is_within_N)
    return _beginning(example, ends, int(within_N[-1])) if within_N.size else None


@dataclass(frozen=True)
class Ends:
    """Places in a text, in order, at which a token ends on every side: tokens before each."""

    student_N: np.ndarray
    teachers: dict[str, np.ndarray]


def shared_ends(example: Example) -> Ends:
    """Where chunks of all teachers end; without teachers, where student tokens do."""
    ends_of = {name: _chunk_ends(tokens) for name, tokens in example.teachers.items()}
    shared_N = np.arange(1, len(example.student_ids) + 1)
    for student_N, _ in ends_of.values():
        shared_N = np.intersect1d(shared_N, student_N, assume_unique=True)
    teachers = {
        name: teacher_N[np.searchsorted(student_N, shared_N)]
        for name, (student_N, teacher_N) in ends_of.items()
    }
    return Ends(shared_N, teachers)


def _chunk_ends(tokens: TeacherTokens) -> tuple[np.ndarray, np.ndarray]:
    """Where each chunk ends on the student's side and on the teacher's."""
    student_N, teacher_N = (
        np.flatnonzero((chunk >= 0) & (np.append(chunk[1:], -1) != chunk)) + 1
        for chunk in (tokens.student_chunk, tokens.teacher_chunk)
    )
    return student_N, teacher_N


def _beginning(example: Example, ends: Ends, index: int) -> Example:
    end = int(ends.student_N[index])
    teachers = {}
    for name, tokens in example.teachers.items():
        teacher_end = int(ends.teachers[name][index])
        teachers[name] = TeacherTokens(
            tokens.ids[:teacher_end],
            tokens.student_chunk[:end],
            tokens.teacher_chunk[:teacher_end],
        )
    return replace(example, student_ids=example.student_ids[:end], teachers=teachers)
