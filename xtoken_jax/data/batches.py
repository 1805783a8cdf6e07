"""Batches in an order that the seed alone decides, and whose place can be saved."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import grain
import numpy as np

from xtoken_jax.data.chain import PieceTries, chain_terms_of_rows
from xtoken_jax.data.example import Example, Lengths
from xtoken_jax.data.order import RowOrder
from xtoken_jax.data.rows import pack
from xtoken_jax.losses import ChainBatch


@dataclass(frozen=True)
class TeacherBatch:
    """One teacher's side of a batch.

    Attributes:
        tokens: `ids_BS`, `positions_BS`, `segment_ids_BS`, int32, as a `Decoder` takes them; as
            long as this teacher's rows.
        spans: The fields of `ops.Spans`, with as many chunk places as student positions.
        chain: Terms of C-KL, where they are asked for.
    """

    tokens: dict[str, np.ndarray]
    spans: dict[str, np.ndarray]
    chain: ChainBatch | None = None


@dataclass(frozen=True)
class Batch:
    """One training batch on the host. Segment 0 is padding; segments count documents from 1.

    Attributes:
        student: `ids_BS`, `positions_BS`, `segment_ids_BS`, int32, as a `Decoder` takes them.
        teachers: By name, in the order in which they were given.
        target_mask_BS: True where a student position has a next token of its own document that is
            to be learnt.
        records: Where the documents in it came from.
    """

    student: dict[str, np.ndarray]
    teachers: dict[str, TeacherBatch]
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
    teacher_lengths: Mapping[str, int],
    seed: int,
    tries: Mapping[str, PieceTries] | None = None,
) -> grain.IterDataset:
    """An endless data set of `Batch`es: rows are packed first-fit, and drawn anew each epoch.

    Whole documents are packed into rows, the tokens of all sides of a document into the same row.
    Iterators have `get_state` and `set_state`. Teachers that have `tries` get terms of C-KL.
    """
    draw = np.random.default_rng(seed)
    shuffled = [examples[index] for index in draw.permutation(len(examples))]
    rows = pack(shuffled, Lengths(student_length, dict(teacher_lengths)))
    return row_batches(rows, batch_size=batch_size, seed=seed, tries=tries)


class RowSource(Protocol):
    """Packed rows in memory or on disk."""

    @property
    def lengths(self) -> Lengths:
        """Of the rows."""
        ...

    @property
    def num_rows(self) -> Sequence[int]:
        """Rows of each source."""
        ...

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """A hash of what each file, generator or shard gave."""
        ...

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, list[str]]:
        """Some rows, and the records in them."""
        ...


def row_batches(
    rows: RowSource,
    *,
    batch_size: int,
    seed: int,
    weights: Sequence[float] | None = None,
    tries: Mapping[str, PieceTries] | None = None,
    host: int = 0,
    num_hosts: int = 1,
) -> grain.IterDataset:
    """An endless data set of `Batch`es of rows: which rows is decided by the seed and the place.

    Args:
        rows: What to draw from.
        batch_size: Rows of the batch of all hosts; a multiple of `num_hosts`.
        seed: Of the order.
        weights: Share of each source in a mixture; None for every row once an epoch.
        tries: Of the teachers that need terms of C-KL.
        host: Which of the hosts' equal parts of each batch to read.
        num_hosts: However many there are, the batch of all is the same.
    """
    if batch_size % num_hosts:
        raise ValueError(f"`batch_size` must be a multiple of {num_hosts} hosts, got {batch_size}")
    order = RowOrder(rows.num_rows, seed, weights=weights)
    own_size = batch_size // num_hosts

    def batch(number: int) -> Batch:
        first = number * batch_size + host * own_size
        arrays, records = rows.read(order.rows(first, own_size))
        return with_chain_terms(collate(arrays, records, rows.lengths), tries or {})

    # One thread that is a few batches ahead: a batch is made in less time than any step takes.
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return grain.MapDataset.range(_ENDLESS).map(batch).to_iter_dataset(ahead)


# Batches that a data set says it has: years of any training.
_ENDLESS = 1 << 40


def collate(arrays: np.ndarray, records: list[str], lengths: Lengths) -> Batch:
    """A batch of rows: positions, chunk starts and masks from what the rows hold."""
    student = _tokens(arrays, "student")
    teachers = {}
    for name in lengths.teachers:
        tokens = _tokens(arrays, f"teacher:{name}")
        teachers[name] = TeacherBatch(tokens, _spans(arrays, f"teacher:{name}", student, tokens))
    segments_BS = student["segment_ids_BS"]
    target_mask_BS = np.zeros(segments_BS.shape, bool)
    same_BS = (segments_BS[:, 1:] == segments_BS[:, :-1]) & (segments_BS[:, 1:] > 0)
    target_mask_BS[:, :-1] = same_BS & arrays["student:loss_mask"][:, 1:]
    return Batch(student, teachers, target_mask_BS, records)


def with_chain_terms(batch: Batch, tries: Mapping[str, PieceTries]) -> Batch:
    """The batch with terms of C-KL for the teachers that have `tries`."""
    teachers = dict(batch.teachers)
    for name, each in tries.items():
        side = teachers[name]
        chain = chain_terms_of_rows(
            batch.student["ids_BS"], side.tokens["ids_BS"], side.spans, each
        )
        teachers[name] = replace(side, chain=chain)
    return replace(batch, teachers=teachers)


def _tokens(arrays: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
    segments_BS = arrays[f"{prefix}:segments"]
    start_N = np.flatnonzero(_changes(segments_BS))
    sizes_N = np.diff(start_N, append=segments_BS.size)
    place_N = np.arange(segments_BS.size, dtype=np.int32)
    positions_N = place_N - np.repeat(start_N.astype(np.int32), sizes_N)
    return {
        "ids_BS": np.ascontiguousarray(arrays[f"{prefix}:ids"]),
        "positions_BS": positions_N.reshape(segments_BS.shape),
        "segment_ids_BS": segments_BS.astype(np.int32),
    }


def _changes(values_BS: np.ndarray) -> np.ndarray:
    """Whether a place has another value than the one before it, as the first of each row does."""
    changes_BS = np.ones(values_BS.shape, bool)
    np.not_equal(values_BS[:, 1:], values_BS[:, :-1], out=changes_BS[:, 1:])
    return changes_BS


def _spans(
    arrays: np.ndarray,
    prefix: str,
    student: dict[str, np.ndarray],
    teacher: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    student_chunk_BS = arrays[f"{prefix}:student_chunk"].astype(np.int32)
    teacher_chunk_BT = arrays[f"{prefix}:teacher_chunk"].astype(np.int32)
    num_places = student_chunk_BS.shape[1]
    student_start_BN, mask_BN = _starts(student_chunk_BS, student["positions_BS"], num_places)
    teacher_start_BN, teacher_mask_BN = _starts(
        teacher_chunk_BT, teacher["positions_BS"], num_places
    )
    return {
        "student_chunk_BS": student_chunk_BS,
        "teacher_chunk_BT": teacher_chunk_BT,
        "student_start_BN": student_start_BN,
        "teacher_start_BN": teacher_start_BN,
        "mask_BN": mask_BN & teacher_mask_BN & ~_unlearnt(student_chunk_BS, arrays),
    }


def _unlearnt(student_chunk_BS: np.ndarray, arrays: np.ndarray) -> np.ndarray:
    """Chunks with a student token that is not to be learnt."""
    unlearnt_BN = np.zeros(student_chunk_BS.shape, bool)
    row_N, place_N = np.nonzero((student_chunk_BS >= 0) & ~arrays["student:loss_mask"])
    unlearnt_BN[row_N, student_chunk_BS[row_N, place_N]] = True
    return unlearnt_BN


def _starts(
    chunk_BS: np.ndarray, positions_BS: np.ndarray, num_places: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where each chunk of each row begins, and whether its document has a token before it.

    0 and False where there is no such chunk.
    """
    # Flat indices, which NumPy finds, reads and writes several times as fast as pairs.
    num_rows, length = chunk_BS.shape
    begins_BS = _changes(chunk_BS) & (chunk_BS >= 0)
    begins_N = np.flatnonzero(begins_BS)
    row_N = np.repeat(np.arange(num_rows), np.count_nonzero(begins_BS, axis=1))
    place_N = (begins_N - row_N * length).astype(np.int32)
    chunk_N = row_N * num_places + chunk_BS.ravel()[begins_N]
    start_BN = np.zeros((num_rows, num_places), np.int32)
    has_before_BN = np.zeros((num_rows, num_places), bool)
    start_BN.ravel()[chunk_N] = place_N
    has_before_BN.ravel()[chunk_N] = positions_BS.ravel()[begins_N] >= 1
    return start_BN, has_before_BN


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
