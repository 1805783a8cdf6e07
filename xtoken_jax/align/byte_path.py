"""The byte path: texts that spell the same on both sides are cut where both have a boundary.

No loop over texts, tokens or bytes: the batch is one stream of bytes, taken in blocks of tokens
whose arrays stay in the processor's cache. Linear in bytes and tokens. `take` instead of indexing
where it counts: it is half again as fast.
"""

from typing import NamedTuple

import numpy as np

from xtoken_jax.align.sides import Side
from xtoken_jax.align.tables import power

_BLOCK_TOKENS = 1 << 15


def equal_length_chunks(student: Side, teacher: Side) -> tuple[np.ndarray, np.ndarray]:
    """Stretches between shared cuts, of two sides whose texts have equally many bytes.

    Returns:
        Chunks `[4, N]`, int32, by content token, and the indices of those whose two sides spell
        different bytes.
    """
    most = min(len(student.keys_N), len(teacher.keys_N))
    chunks_4N = np.empty((4, most), np.int32)
    differs_parts = [np.zeros(0, np.int64)]
    student_at = teacher_at = num_chunks = 0
    block = _BLOCK_TOKENS
    while student_at < len(student.keys_N):
        cuts = _block_cuts(
            _Block.of(student, student_at, block), _Block.of(teacher, teacher_at, block)
        )
        if not cuts.student_end_N.size:
            block *= 2  # one chunk longer than a block
            continue
        found = slice(num_chunks, num_chunks + len(cuts.student_end_N))
        for rows, end_N, at in (
            (0, cuts.student_end_N, student_at),
            (2, cuts.teacher_end_N, teacher_at),
        ):
            start_N, stop_N = chunks_4N[rows : rows + 2, found]
            np.add(end_N, at, out=stop_N, casting="same_kind")
            start_N[0], start_N[1:] = at, stop_N[:-1]
        differs_parts.append(cuts.differs_N + num_chunks)
        student_at, teacher_at = (
            int(chunks_4N[1, found.stop - 1]),
            int(chunks_4N[3, found.stop - 1]),
        )
        num_chunks, block = found.stop, _BLOCK_TOKENS
    return chunks_4N[:, :num_chunks], np.concatenate(differs_parts)


class _Block(NamedTuple):
    """Some tokens in a row: where each ends, counted from the first one's start, and its hash."""

    lengths_N: np.ndarray
    ends_N: np.ndarray
    hashes_N: np.ndarray

    @classmethod
    def of(cls, side: Side, start: int, count: int) -> "_Block":
        lengths_N = side.lengths_N[start : start + count]
        ends_N = np.cumsum(lengths_N, dtype=np.int64)
        return cls(lengths_N, ends_N, side.table.hashes_K.take(side.keys_N[start : start + count]))

    def powers(self, count: int) -> np.ndarray:
        """By what the hash of each of the first tokens counts in the hash of the block."""
        return power(self.ends_N[:count] - self.lengths_N[:count], largest=int(self.ends_N[-1]))


class _Cuts(NamedTuple):
    """Where both sides have a token boundary, but the start.

    Attributes:
        student_end_N: Student tokens before it.
        teacher_end_N: Teacher tokens before it.
        differs_N: Which stretches between one cut and the next spell different bytes, by index.
    """

    student_end_N: np.ndarray
    teacher_end_N: np.ndarray
    differs_N: np.ndarray


def _block_cuts(student: _Block, teacher: _Block) -> _Cuts:
    # For each byte the teacher's tokens up to the one that ends there, 0 for none. Looking up
    # one side's ends intersects two sorted lists without sorting or searching.
    ending_N = np.zeros(int(max(student.ends_N[-1], teacher.ends_N[-1])) + 1, np.int32)
    ending_N[teacher.ends_N] = np.arange(1, len(teacher.ends_N) + 1, dtype=np.int32)
    partner_N = ending_N.take(student.ends_N)
    last_N = np.flatnonzero(partner_N != 0)
    student_end_N, teacher_end_N = last_N + 1, partner_N.take(last_N)
    differs_N = np.zeros(0, np.int64)
    if last_N.size:
        counts = int(student_end_N[-1]), int(teacher_end_N[-1])
        pairs = list(zip((student, teacher), counts, strict=True))
        totals = [np.dot(side.hashes_N[:count], side.powers(count)) for side, count in pairs]
        if totals[0] != totals[1]:
            sums = [np.cumsum(side.hashes_N[:count] * side.powers(count)) for side, count in pairs]
            excess_N = sums[0][student_end_N - 1] - sums[1][teacher_end_N - 1]
            differs_N = np.flatnonzero(np.diff(excess_N, prepend=np.uint64(0)))
    return _Cuts(student_end_N, teacher_end_N, differs_N)
