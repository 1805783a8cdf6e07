"""Packed batches in an order that the seed alone decides, and whose place can be saved."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from grain.experimental import FirstFitPackIterDataset

from xtoken_jax.data.examples import Example

# First-fit looks for room among this many rows at a time: more waste fewer positions.
_ROWS_OPEN = 4


@dataclass(frozen=True)
class Batch:
    """One training batch on the host. Segment 0 is padding; segments count documents from 1.

    Attributes:
        student: `ids_BS`, `positions_BS`, `segment_ids_BS`, int32, as a `Decoder` takes them.
        teacher: The same for the teacher, whose rows have another length.
        spans: The fields of `ops.Spans`, with as many chunk places as student positions.
        target_mask_BS: True where a student position has a next token of its own document.
        records: Where the documents in it came from.
    """

    student: dict[str, np.ndarray]
    teacher: dict[str, np.ndarray]
    spans: dict[str, np.ndarray]
    target_mask_BS: np.ndarray
    records: list[str]

    @property
    def num_tokens(self) -> int:
        """Student tokens that are not padding."""
        return int((self.student["segment_ids_BS"] > 0).sum())


def batch_dataset(
    examples: Sequence[Example],
    *,
    batch_size: int,
    student_length: int,
    teacher_length: int,
    seed: int,
) -> grain.IterDataset:
    """An endless data set of `Batch`es: shuffled anew each epoch, packed first-fit.

    Whole documents are packed into rows, the student's and the teacher's tokens of a document
    into the same row. Iterators have `get_state` and `set_state`.
    """
    source = [
        {
            "student_ids": example.student_ids,
            "student_chunk": example.student_chunk,
            "teacher_ids": example.teacher_ids,
            "teacher_chunk": example.teacher_chunk,
            "record": example.record,
        }
        for example in examples
    ]
    dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat().to_iter_dataset()
    lengths = {
        "student_ids": student_length,
        "student_chunk": student_length,
        "teacher_ids": teacher_length,
        "teacher_chunk": teacher_length,
    }
    dataset = FirstFitPackIterDataset(
        dataset,
        length_struct=lengths,
        num_packing_bins=_ROWS_OPEN * batch_size,
        shuffle_bins=False,
        meta_features=("student_chunk", "teacher_chunk", "record"),
        padding_struct={name: -1 if "chunk" in name else 0 for name in lengths},
    )
    return dataset.batch(batch_size, drop_remainder=True, batch_fn=collate)


def collate(rows: Sequence[dict[str, Any]]) -> Batch:
    """Stack packed rows and number the chunks of each row through."""
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0] if name != "record"}
    student = _side(stacked, "student")
    teacher = _side(stacked, "teacher")
    student_chunk_BS, teacher_chunk_BT = _number_through(
        stacked["student_chunk"],
        student["segment_ids_BS"],
        stacked["teacher_chunk"],
        teacher["segment_ids_BS"],
    )
    num_places = student_chunk_BS.shape[1]
    student_start_BN, is_chunk_BN = _starts(student_chunk_BS, num_places)
    teacher_start_BN, _ = _starts(teacher_chunk_BT, num_places)
    mask_BN = is_chunk_BN & (
        np.take_along_axis(student["positions_BS"], student_start_BN, axis=1) >= 1
    )
    mask_BN &= np.take_along_axis(teacher["positions_BS"], teacher_start_BN, axis=1) >= 1
    segments_BS = student["segment_ids_BS"]
    target_mask_BS = np.zeros(segments_BS.shape, bool)
    target_mask_BS[:, :-1] = (segments_BS[:, 1:] == segments_BS[:, :-1]) & (segments_BS[:, 1:] > 0)
    return Batch(
        student,
        teacher,
        {
            "student_chunk_BS": student_chunk_BS,
            "teacher_chunk_BT": teacher_chunk_BT,
            "student_start_BN": student_start_BN,
            "teacher_start_BN": teacher_start_BN,
            "mask_BN": mask_BN,
        },
        target_mask_BS,
        [record for row in rows for record in row["record"]],
    )


def _side(stacked: dict[str, np.ndarray], side: str) -> dict[str, np.ndarray]:
    return {
        "ids_BS": stacked[f"{side}_ids"],
        "positions_BS": stacked[f"{side}_ids_positions"],
        "segment_ids_BS": stacked[f"{side}_ids_segment_ids"],
    }


def _number_through(
    student_chunk_BS: np.ndarray,
    student_segments_BS: np.ndarray,
    teacher_chunk_BT: np.ndarray,
    teacher_segments_BT: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Chunk numbers count within a document; make them count within a row, on both sides."""
    num_segments = max(student_segments_BS.max(), teacher_segments_BT.max()) + 1
    counts = np.zeros((len(student_chunk_BS), num_segments), np.int32)
    row_BS = np.broadcast_to(np.arange(len(counts))[:, None], student_chunk_BS.shape)
    np.maximum.at(counts, (row_BS, student_segments_BS), student_chunk_BS + 1)
    before = np.cumsum(counts, axis=1) - counts
    return (
        _shifted(student_chunk_BS, student_segments_BS, before),
        _shifted(teacher_chunk_BT, teacher_segments_BT, before),
    )


def _shifted(chunk: np.ndarray, segments: np.ndarray, before: np.ndarray) -> np.ndarray:
    shift = np.take_along_axis(before, segments, axis=1)
    return np.where(chunk >= 0, chunk + shift, -1).astype(np.int32)


def _starts(chunk_BS: np.ndarray, num_places: int) -> tuple[np.ndarray, np.ndarray]:
    """First position of each chunk of each row, 0 where there is no such chunk; and whether."""
    start_BN = np.zeros((len(chunk_BS), num_places), np.int32)
    is_chunk_BN = np.zeros(start_BN.shape, bool)
    # Written from the back, so that the first position of a chunk is what stays.
    row_N, position_N = (index[::-1] for index in np.nonzero(chunk_BS >= 0))
    start_BN[row_N, chunk_BS[row_N, position_N]] = position_N
    is_chunk_BN[row_N, chunk_BS[row_N, position_N]] = True
    return start_BN, is_chunk_BN


def padded_rows(
    rows: Sequence[np.ndarray], *, batch_size: int, length: int
) -> Iterator[dict[str, np.ndarray]]:
    """Unpacked batches for evaluation: one text a row, cut at `length`, segment 0 for padding."""
    for first in range(0, len(rows), batch_size):
        group = rows[first : first + batch_size]
        ids_BS = np.zeros((batch_size, length), np.int32)
        segments_BS = np.zeros((batch_size, length), np.int32)
        for index, row in enumerate(group):
            row = row[:length]
            ids_BS[index, : len(row)] = row
            segments_BS[index, : len(row)] = 1
        positions_BS = np.broadcast_to(np.arange(length, dtype=np.int32), ids_BS.shape)
        yield {"ids_BS": ids_BS, "positions_BS": positions_BS, "segment_ids_BS": segments_BS}
