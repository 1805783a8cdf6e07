"""What packed rows hold, in numbers that add up over shards and sources."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from xtoken_jax.data.batches import Batch, TeacherBatch, collate
from xtoken_jax.data.example import Lengths
from xtoken_jax.data.prepared import PreparedRows
from xtoken_jax.data.rows import Rows

_ROWS_AT_A_TIME = 64


@dataclass(frozen=True)
class TeacherCounts:
    """One teacher's side.

    Attributes:
        tokens: The teacher's, without padding.
        longest: The teacher's tokens of the longest document.
        scored: Student tokens in chunks that are scored.
        student_gaps: Student tokens in no chunk of this teacher's.
        gaps: Tokens of the teacher in no chunk.
    """

    tokens: int = 0
    longest: int = 0
    scored: int = 0
    student_gaps: int = 0
    gaps: int = 0

    def __add__(self, other: "TeacherCounts") -> "TeacherCounts":
        """Of both."""
        return TeacherCounts(
            self.tokens + other.tokens,
            max(self.longest, other.longest),
            self.scored + other.scored,
            self.student_gaps + other.student_gaps,
            self.gaps + other.gaps,
        )


@dataclass(frozen=True)
class RowCounts:
    """Rows, their documents and tokens.

    Attributes:
        rows: Packed rows.
        documents: In them.
        cut: Documents of which a part was left out, because they are too long.
        tokens: The student's, without padding.
        longest: Student tokens of the longest document.
        by_length: Documents of so many student tokens: at `i` those of more than half of `2 ** i`
            and at most `2 ** i`.
        learnt: Student tokens that cross-entropy counts.
        teachers: By name.
    """

    rows: int = 0
    documents: int = 0
    cut: int = 0
    tokens: int = 0
    longest: int = 0
    by_length: Sequence[int] = ()
    learnt: int = 0
    teachers: Mapping[str, TeacherCounts] = field(default_factory=dict)

    def __add__(self, other: "RowCounts") -> "RowCounts":
        """Of both."""
        names = {**self.teachers, **other.teachers}
        nothing = TeacherCounts()
        return RowCounts(
            self.rows + other.rows,
            self.documents + other.documents,
            self.cut + other.cut,
            self.tokens + other.tokens,
            max(self.longest, other.longest),
            [a + b for a, b in zip_longest(self.by_length, other.by_length, fillvalue=0)],
            self.learnt + other.learnt,
            {n: self.teachers.get(n, nothing) + other.teachers.get(n, nothing) for n in names},
        )

    def shares(self, lengths: Lengths) -> dict[str, Any]:
        """Parts of a whole, 0 of nothing.

        Returns:
            `utilisation`, of the student's places that are not padding, and `learnt`, of its
            tokens. For each of `teachers` `utilisation`, likewise; `scored` and `student_gaps`, of
            the student's tokens; `gaps`, of the teacher's.
        """
        teachers = {
            name: {
                "utilisation": _share(each.tokens, self.rows * lengths.teachers[name]),
                "scored": _share(each.scored, self.tokens),
                "student_gaps": _share(each.student_gaps, self.tokens),
                "gaps": _share(each.gaps, each.tokens),
            }
            for name, each in self.teachers.items()
        }
        return {
            "utilisation": _share(self.tokens, self.rows * lengths.student),
            "learnt": _share(self.learnt, self.tokens),
            "teachers": teachers,
        }

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "RowCounts":
        """What `to_dict` gave."""
        teachers = {name: TeacherCounts(**each) for name, each in content["teachers"].items()}
        return cls(**{**content, "teachers": teachers})


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def count_rows(rows: Rows) -> RowCounts:
    """Count through the rows of one source or several."""
    counts = RowCounts(cut=sum(rows.num_cut))
    for first in range(0, len(rows), _ROWS_AT_A_TIME):
        block = rows.arrays[first : first + _ROWS_AT_A_TIME]
        counts += _of_batch(collate(block, [], rows.lengths))
    return counts


def source_counts(rows: Rows | PreparedRows) -> list[RowCounts]:
    """What each source gave; of prepared rows as it was counted when they were made."""
    counts = [RowCounts() for _ in rows.num_rows]
    if isinstance(rows, PreparedRows):
        for shard in rows.manifest["shards"]:
            counts[shard["source"]] += RowCounts.from_dict(shard["counts"])
        return counts
    starts = np.cumsum(rows.num_rows) - rows.num_rows
    for source, (start, size) in enumerate(zip(starts, rows.num_rows, strict=True)):
        block = rows.arrays[start : start + size]
        counts[source] = count_rows(Rows(block, [], rows.lengths, [size], [rows.num_cut[source]]))
    return counts


def _of_batch(batch: Batch) -> RowCounts:
    lengths_N = _document_lengths(batch.student)
    halvings_N = np.ceil(np.log2(lengths_N)).astype(np.int64)
    return RowCounts(
        rows=len(batch.target_mask_BS),
        documents=len(lengths_N),
        tokens=int(lengths_N.sum()),
        longest=int(lengths_N.max(initial=0)),
        by_length=np.bincount(halvings_N).tolist(),
        learnt=int(batch.target_mask_BS.sum()),
        teachers={name: _of_teacher(batch, each) for name, each in batch.teachers.items()},
    )


def _of_teacher(batch: Batch, teacher: TeacherBatch) -> TeacherCounts:
    chunk_BS = teacher.spans["student_chunk_BS"]
    is_scored_BS = np.take_along_axis(teacher.spans["mask_BN"], np.maximum(chunk_BS, 0), axis=1)
    lengths_N = _document_lengths(teacher.tokens)
    in_chunk_BT = teacher.spans["teacher_chunk_BT"] >= 0
    return TeacherCounts(
        tokens=int(lengths_N.sum()),
        longest=int(lengths_N.max(initial=0)),
        scored=int((is_scored_BS & (chunk_BS >= 0)).sum()),
        student_gaps=batch.num_tokens - int((chunk_BS >= 0).sum()),
        gaps=int(lengths_N.sum()) - int(in_chunk_BT.sum()),
    )


def _document_lengths(tokens: Mapping[str, np.ndarray]) -> np.ndarray:
    """Tokens of each document of a batch."""
    segments_BS = tokens["segment_ids_BS"]
    ends_BS = (segments_BS > 0) & (np.diff(segments_BS, axis=1, append=0) != 0)
    return tokens["positions_BS"][ends_BS] + 1
