"""W in two passes: equal bytes, then re-tokenisation with geometrically falling weights."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from xtoken_jax.projection.retokenise import Pieces, retokenise
from xtoken_jax.text import ByteTokenizer

LongPieces = Literal["truncate", "drop"]


@dataclass(frozen=True)
class Projection:
    """A sparse, row-stochastic matrix from student tokens to teacher tokens.

    Attributes:
        ids_VK: int32 teacher ids, `-1` where a row has fewer than `K` entries.
        weights_VK: float32, 0 at the pads; a row sums to 1, or to 0 if it is empty.
        num_student_tokens: Rows, V: one past the student's largest id.
        num_teacher_tokens: Columns, U: one past the teacher's largest id.
        student_fingerprint: Of the tokenizer that the rows belong to.
        teacher_fingerprint: Of the tokenizer that the columns belong to.
        options: How it was built, as JSON-compatible values.
    """

    ids_VK: np.ndarray
    weights_VK: np.ndarray
    num_student_tokens: int
    num_teacher_tokens: int
    student_fingerprint: str
    teacher_fingerprint: str
    options: dict[str, float | int | str]

    @property
    def empty_rows(self) -> np.ndarray:
        """Student ids whose mass goes nowhere."""
        return np.flatnonzero(self.ids_VK[:, 0] < 0)

    @property
    def reachable_U(self) -> np.ndarray:
        """True for teacher tokens that some student token puts mass on."""
        reachable_U = np.zeros(self.num_teacher_tokens, bool)
        reachable_U[self.ids_VK[self.ids_VK >= 0]] = True
        return reachable_U


def build_projection(
    student: ByteTokenizer,
    teacher: ByteTokenizer,
    *,
    beta: float = 0.9,
    gamma: float = 0.1,
    max_pieces: int = 4,
    long_pieces: LongPieces = "truncate",
) -> Projection:
    r"""Build W from the two tokenizers alone; equal input gives equal output.

    .. math:: W[s, \tau_i] \propto \beta \gamma^i, \quad \sum_t W[s, t] = 1

    where :math:`\tau` is the student token re-tokenised by the teacher, a single piece for an
    exact match.

    Args:
        student: Tokenizer of the rows.
        teacher: Tokenizer of the columns.
        beta: Weight of the first piece, before the row is normalised (which cancels it).
        gamma: Ratio between a piece's weight and its predecessor's, in `[0, 1]`; 0 keeps the
            first piece alone.
        max_pieces: Pieces kept, K.
        long_pieces: What to do with a longer row: keep its first `max_pieces`, or drop the row.

    Raises:
        ValueError: an option is out of range.
    Source: X-Token (arXiv 2605.21699), section on the projection matrix.
    """
    if not 0 < beta < float("inf"):
        raise ValueError(f"`beta` must be positive, got {beta}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"`gamma` must be in [0, 1], got {gamma}")
    if max_pieces < 1:
        raise ValueError(f"`max_pieces` must be at least 1, got {max_pieces}")
    if long_pieces not in get_args(LongPieces):
        raise ValueError(f"`long_pieces` must be one of {get_args(LongPieces)}, got {long_pieces}")
    pieces = retokenise(student, teacher)
    ids_VK, weights_VK = _rows(pieces, beta, gamma, max_pieces, drop=long_pieces == "drop")
    return Projection(
        ids_VK,
        weights_VK,
        num_student_tokens=student.num_tokens,
        num_teacher_tokens=teacher.num_tokens,
        student_fingerprint=student.fingerprint,
        teacher_fingerprint=teacher.fingerprint,
        options={
            "beta": beta,
            "gamma": gamma,
            "max_pieces": max_pieces,
            "long_pieces": long_pieces,
        },
    )


def _rows(
    pieces: Pieces, beta: float, gamma: float, max_pieces: int, *, drop: bool
) -> tuple[np.ndarray, np.ndarray]:
    lengths_V = pieces.lengths_V
    kept_V = np.minimum(lengths_V, max_pieces)
    if drop:
        kept_V = np.where(lengths_V > max_pieces, 0, kept_V)
    rank_VK = np.broadcast_to(np.arange(max_pieces), (len(kept_V), max_pieces))
    filled_VK = rank_VK < kept_V[:, None]
    at_VK = np.where(filled_VK, pieces.offsets_V[:-1, None] + rank_VK, 0)
    ids_VK = np.where(filled_VK, pieces.ids_N[at_VK], -1).astype(np.int32)
    weights_VK = np.where(filled_VK, beta * float(gamma) ** rank_VK, 0.0)
    _merge_repeats(ids_VK, weights_VK)
    totals_V1 = weights_VK.sum(axis=1, keepdims=True)
    np.divide(weights_VK, totals_V1, out=weights_VK, where=totals_V1 > 0)
    weights_VK = weights_VK.astype(np.float32)
    ids_VK[weights_VK == 0] = -1  # pieces that a small gamma leaves nothing reach nothing
    return ids_VK, weights_VK


def _merge_repeats(ids_VK: np.ndarray, weights_VK: np.ndarray) -> None:
    """Add a repeated piece's weight to its first occurrence, then close the hole, in place."""
    for later in range(1, ids_VK.shape[1]):
        for earlier in range(later):
            same_V = (ids_VK[:, later] == ids_VK[:, earlier]) & (ids_VK[:, later] >= 0)
            weights_VK[same_V, earlier] += weights_VK[same_V, later]
            weights_VK[same_V, later] = 0.0
            ids_VK[same_V, later] = -1
    order_VK = np.argsort(ids_VK < 0, axis=1, kind="stable")
    ids_VK[:] = np.take_along_axis(ids_VK, order_VK, axis=1)
    weights_VK[:] = np.take_along_axis(weights_VK, order_VK, axis=1)
