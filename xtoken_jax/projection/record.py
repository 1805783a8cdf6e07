"""W as plain values, for JSON and for tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xtoken_jax.errors import UsageError
from xtoken_jax.projection.matrix import Projection
from xtoken_jax.text import ByteTokenizer


def projection_record(
    projection: Projection,
    student: ByteTokenizer,
    teacher: ByteTokenizer,
    *,
    tokens: Sequence[bytes] = (),
    path: Path | None = None,
) -> dict[str, Any]:
    """Counts, and the rows of some tokens.

    `exact` counts student tokens that are a teacher token; `single_piece_rows` also control tokens
    that have a counterpart, and tokens that repeat one piece.

    Args:
        projection: W of the two tokenizers.
        student: Of the rows.
        teacher: Of the columns.
        tokens: Student tokens, by their bytes, whose rows are wanted.
        path: Where W was saved.

    Raises:
        UsageError: no student token has one of these byte strings.
    """
    is_entry_VK = projection.ids_VK >= 0
    return {
        "student": student.name,
        "teacher": teacher.name,
        "rows": projection.num_student_tokens,
        "columns": projection.num_teacher_tokens,
        "entries": int(is_entry_VK.sum()),
        "exact": sum(content in teacher.id_of_bytes for content in student.token_bytes),
        "single_piece_rows": int((is_entry_VK.sum(axis=1) == 1).sum()),
        "empty_rows": len(projection.empty_rows),
        "unreachable_teacher_tokens": int((~projection.reachable_U).sum()),
        "path": None if path is None else str(path),
        "examples": [_example(projection, student, teacher, token) for token in tokens],
    }


def _example(
    projection: Projection, student: ByteTokenizer, teacher: ByteTokenizer, token: bytes
) -> dict[str, Any]:
    if token not in student.id_of_bytes:
        raise UsageError(f"{student.name} has no token {token.decode(errors='backslashreplace')!r}")
    row = student.id_of_bytes[token]
    pieces = [id for id in projection.ids_VK[row].tolist() if id >= 0]
    return {
        "token": student.display(row),
        "pieces": [teacher.display(id) for id in pieces],
        "weights": projection.weights_VK[row, : len(pieces)].tolist(),
    }
