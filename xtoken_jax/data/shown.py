"""A batch as its documents, in plain values: what tables, pages and JSON show of it."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from xtoken_jax.data.batches import Batch, TeacherBatch
from xtoken_jax.text import ByteTokenizer


def shown_documents(
    batch: Batch, student: ByteTokenizer, teachers: Mapping[str, ByteTokenizer]
) -> list[dict[str, Any]]:
    """The documents of a batch, row by row.

    Returns:
        For each its `record` and `row`; `student`, with `ids`, `pieces` (the tokens as text),
        `bytes` (their own, in hexadecimal) and `learnt` (whether cross-entropy counts the token);
        and of each of `teachers` by name `ids`, `pieces`, `bytes`, `chunks` as `[a, b, c, d]`,
        `scored` (whether the distillation counts each chunk), and `gaps` of both sides as indices
        of tokens.
    """
    records = iter(batch.records)
    return [
        _document(batch, row, segment, next(records), student, teachers)
        for row, segment in _segments(batch)
    ]


def _segments(batch: Batch) -> Iterator[tuple[int, int]]:
    for row, count in enumerate(batch.student["segment_ids_BS"].max(axis=1).tolist()):
        for segment in range(1, count + 1):
            yield row, segment


def _document(
    batch: Batch,
    row: int,
    segment: int,
    record: str,
    student: ByteTokenizer,
    teachers: Mapping[str, ByteTokenizer],
) -> dict[str, Any]:
    own = _place(batch.student, row, segment)
    # A position's target is the token behind it; a document's first token is nobody's.
    learnt = [False, *batch.target_mask_BS[row, own].tolist()[:-1]]
    sides = {
        name: _teacher(batch.teachers[name], row, segment, own, tokenizer)
        for name, tokenizer in teachers.items()
    }
    shown = _side(batch.student["ids_BS"][row, own], student) | {"learnt": learnt}
    return {"record": record, "row": row, "student": shown, "teachers": sides}


def _place(tokens: Mapping[str, np.ndarray], row: int, segment: int) -> slice:
    """Where a document stands in its row."""
    places_S = np.flatnonzero(tokens["segment_ids_BS"][row] == segment)
    return slice(int(places_S[0]), int(places_S[-1]) + 1)


def _teacher(
    batch: TeacherBatch, row: int, segment: int, own: slice, tokenizer: ByteTokenizer
) -> dict[str, Any]:
    other = _place(batch.tokens, row, segment)
    student_chunk = batch.spans["student_chunk_BS"][row, own]
    teacher_chunk = batch.spans["teacher_chunk_BT"][row, other]
    chunks_N = np.unique(student_chunk[student_chunk >= 0])
    bounds = [*_bounds(student_chunk, chunks_N), *_bounds(teacher_chunk, chunks_N)]
    return _side(batch.tokens["ids_BS"][row, other], tokenizer) | {
        "chunks": [list(chunk) for chunk in zip(*bounds, strict=True)],
        "scored": batch.spans["mask_BN"][row, chunks_N].tolist(),
        "gaps": {
            "student": np.flatnonzero(student_chunk < 0).tolist(),
            "teacher": np.flatnonzero(teacher_chunk < 0).tolist(),
        },
    }


def _bounds(chunk_S: np.ndarray, chunks_N: np.ndarray) -> tuple[list[int], list[int]]:
    """The first token of each chunk, and one past its last."""
    places_N = np.flatnonzero(chunk_S >= 0)
    of_place_N = chunk_S[places_N]  # ascends
    first_N = places_N[np.searchsorted(of_place_N, chunks_N, side="left")]
    last_N = places_N[np.searchsorted(of_place_N, chunks_N, side="right") - 1]
    return first_N.tolist(), (last_N + 1).tolist()


def _side(ids_S: np.ndarray, tokenizer: ByteTokenizer) -> dict[str, Any]:
    ids = ids_S.tolist()
    return {
        "ids": ids,
        "pieces": [tokenizer.display(id) for id in ids],
        "bytes": [tokenizer.token_bytes[id].hex() for id in ids],
    }
