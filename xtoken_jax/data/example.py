"""One document as token ids of the student and of each teacher, with their chunks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TeacherTokens:
    """One teacher's side of a document, and how it meets the student's.

    Attributes:
        ids: int32.
        student_chunk: Chunk of each student token, counted from 0, -1 for none.
        teacher_chunk: Chunk of each of this teacher's tokens.
        has_bos: Whether the first token is the tokenizer's bos.
    """

    ids: np.ndarray
    student_chunk: np.ndarray
    teacher_chunk: np.ndarray
    has_bos: bool = False


@dataclass(frozen=True)
class Example:
    """One document on all sides.

    Attributes:
        student_ids: int32.
        loss_mask: True for student tokens that are to be learnt; of a plain text, all.
        teachers: By name; each has its own chunks on the student's tokens.
        record: Where the document came from.
        has_bos: Whether the student's first token is its tokenizer's bos.
        is_cut: Whether part of the document was left out, because it is too long.
    """

    student_ids: np.ndarray
    loss_mask: np.ndarray
    teachers: dict[str, TeacherTokens]
    record: str
    has_bos: bool = False
    is_cut: bool = False


@dataclass(frozen=True)
class Lengths:
    """Tokens that a row has, by side."""

    student: int
    teachers: Mapping[str, int]

    def __str__(self) -> str:
        sides = [f"{self.student} student tokens"]
        sides += [f"{length} tokens of {name}" for name, length in self.teachers.items()]
        return " and ".join(sides)
