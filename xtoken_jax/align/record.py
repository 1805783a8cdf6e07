"""An alignment as plain values, for JSON and for tables."""

from typing import Any

from xtoken_jax.align.spans import Alignment
from xtoken_jax.text import ByteTokenizer, Encoded


def alignment_record(
    alignment: Alignment,
    student: Encoded,
    teacher: Encoded,
    student_tokenizer: ByteTokenizer,
    teacher_tokenizer: ByteTokenizer,
    *,
    index: int = 0,
) -> dict[str, Any]:
    """One text of a batch: both tokenisations, the chunks, the gaps.

    Returns:
        `student` and `teacher` with `ids` and `pieces` (the tokens as text), `chunks` as
        `[a, b, c, d]`, `gaps` of each side as token indices, and the `path` that aligned them.
    """
    student_gaps, teacher_gaps = alignment.gaps(index)
    return {
        "student": _side(student, student_tokenizer, index),
        "teacher": _side(teacher, teacher_tokenizer, index),
        "chunks": alignment[index].tolist(),
        "gaps": {"student": student_gaps.tolist(), "teacher": teacher_gaps.tolist()},
        "path": "dp" if alignment.by_dp_B[index] else "bytes",
    }


def _side(encoded: Encoded, tokenizer: ByteTokenizer, index: int) -> dict[str, Any]:
    ids = encoded[index].tolist()
    return {"ids": ids, "pieces": [tokenizer.display(id) for id in ids]}
