"""Documents packed first-fit into rows of fixed length, on all sides at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from xtoken_jax.data.example import Example, Lengths

# First-fit looks for room among this many rows; then the fullest of them makes way for a new one.
_ROWS_OPEN = 64


@dataclass(frozen=True)
class Rows:
    """Packed rows.

    Attributes:
        arrays: One structured element a row, as `row_dtype` says.
        records: Where the documents of each row came from.
        lengths: Of the rows.
        num_rows: Of each source, where there are several: rows come one source after the other.
        num_cut: Documents of each source of which a part was left out.
        fingerprints: A hash of what each file or generator gave.
    """

    arrays: np.ndarray
    records: Sequence[list[str]]
    lengths: Lengths
    num_rows: Sequence[int] = ()
    num_cut: Sequence[int] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.arrays)

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, list[str]]:
        """Some rows, and the records in them."""
        records = [record for index in indices for record in self.records[index]]
        return self.arrays[np.asarray(indices)], records


def row_dtype(lengths: Lengths) -> np.dtype:
    """What a row holds: ids, and small numbers that say which document and chunk they are of.

    Segments count documents from 1, 0 is padding. Chunks count through the row, -1 is none.
    Fields of a teacher are `teacher:NAME:FIELD`.
    """
    longest = max([lengths.student, *lengths.teachers.values()])
    small = np.int16 if longest <= np.iinfo(np.int16).max else np.int32
    fields = [
        ("student:ids", np.int32, (lengths.student,)),
        ("student:segments", small, (lengths.student,)),
        ("student:loss_mask", np.bool_, (lengths.student,)),
    ]
    for name, length in lengths.teachers.items():
        fields += [
            (f"teacher:{name}:ids", np.int32, (length,)),
            (f"teacher:{name}:segments", small, (length,)),
            (f"teacher:{name}:student_chunk", small, (lengths.student,)),
            (f"teacher:{name}:teacher_chunk", small, (length,)),
        ]
    return np.dtype(fields)


def pack(examples: Iterable[Example], lengths: Lengths) -> Rows:
    """Pack examples, each whole, into rows; they must fit in `lengths`."""
    groups = list(first_fit(examples, lengths))
    arrays = np.zeros(len(groups), row_dtype(lengths))
    for index, group in enumerate(groups):
        fill_row(arrays[index], group)
    records = [[example.record for example in group] for group in groups]
    num_cut = sum(example.is_cut for group in groups for example in group)
    return Rows(arrays, records, lengths, [len(groups)], [num_cut])


def joined(parts: Sequence[Rows], fingerprints: Mapping[str, str]) -> Rows:
    """The rows of several sources, which must have the same lengths."""
    arrays = np.concatenate([part.arrays for part in parts])
    records = [records for part in parts for records in part.records]
    num_rows = [len(part) for part in parts]
    num_cut = [sum(part.num_cut) for part in parts]
    return Rows(arrays, records, parts[0].lengths, num_rows, num_cut, fingerprints)


def first_fit(
    examples: Iterable[Example], lengths: Lengths, *, rows_open: int = _ROWS_OPEN
) -> Iterator[list[Example]]:
    """Groups of examples that share a row, as the rows are finished."""
    capacity_K = np.array([lengths.student, *lengths.teachers.values()])
    groups: list[list[Example]] = []
    room_NK = np.zeros((0, len(capacity_K)), np.int64)
    for example in examples:
        need_K = _sizes(example, lengths)
        fits_N = (room_NK >= need_K).all(axis=1)
        if fits_N.any():
            row = int(fits_N.argmax())
        else:
            if len(groups) == rows_open:
                fullest = int((room_NK / capacity_K).min(axis=1).argmin())
                yield groups.pop(fullest)
                room_NK = np.delete(room_NK, fullest, axis=0)
            row = len(groups)
            groups.append([])
            room_NK = np.concatenate([room_NK, capacity_K[None]])
        groups[row].append(example)
        room_NK[row] -= need_K
    yield from groups


def _sizes(example: Example, lengths: Lengths) -> np.ndarray:
    teachers = [len(example.teachers[name].ids) for name in lengths.teachers]
    return np.array([len(example.student_ids), *teachers])


def fill_row(row: np.void, group: Sequence[Example]) -> None:
    """Write the examples of a group, end to end, into a row of zeros."""
    _put_side(row, "student", [example.student_ids for example in group])
    mask = np.concatenate([example.loss_mask for example in group])
    row["student:loss_mask"][: len(mask)] = mask
    for name in group[0].teachers:
        sides = [example.teachers[name] for example in group]
        prefix = f"teacher:{name}"
        _put_side(row, prefix, [side.ids for side in sides])
        chunks = [(side.student_chunk, side.teacher_chunk) for side in sides]
        counts = [1 + max(side.student_chunk.max(initial=-1), -1) for side in sides]
        before = np.cumsum(counts) - counts
        for at, name in enumerate(("student_chunk", "teacher_chunk")):
            _put_chunks(row[f"{prefix}:{name}"], [pair[at] for pair in chunks], before)


def _put_side(row: np.void, prefix: str, ids: Sequence[np.ndarray]) -> None:
    end_to_end = np.concatenate(ids)
    row[f"{prefix}:ids"][: len(end_to_end)] = end_to_end
    segments = np.repeat(np.arange(1, len(ids) + 1), [len(part) for part in ids])
    row[f"{prefix}:segments"][: len(end_to_end)] = segments


def _put_chunks(values: np.ndarray, chunks: Sequence[np.ndarray], before: np.ndarray) -> None:
    """Chunks count within a document; here they are made to count within the row."""
    values[:] = -1
    end_to_end = np.concatenate(chunks)
    shift = np.repeat(before, [len(part) for part in chunks])
    values[: len(end_to_end)] = np.where(end_to_end >= 0, end_to_end + shift, -1)


@dataclass(frozen=True)
class Utilisation:
    """Which part of the rows' places hold tokens, by side."""

    student: float
    teachers: dict[str, float]


def utilisation(rows: Rows) -> Utilisation:
    """Shares of places that are not padding; 0 without rows."""

    def share(name: str) -> float:
        segments = rows.arrays[name]
        return float((segments > 0).mean()) if segments.size else 0.0

    names = rows.lengths.teachers
    return Utilisation(
        share("student:segments"), {name: share(f"teacher:{name}:segments") for name in names}
    )
