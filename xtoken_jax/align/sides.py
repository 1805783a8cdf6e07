"""One side of a batch of texts, as flat arrays."""

from dataclasses import dataclass, replace

import numpy as np

from xtoken_jax.align.tables import ByteTable
from xtoken_jax.text import Encoded

_NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Side:
    """The tokens of a batch that contribute bytes, and apart from them those that do not.

    Attributes:
        table: What a key stands for.
        keys_N: Key of each content token.
        lengths_N: int32, its bytes.
        offsets_B: `[B + 1]`; text `i` owns the content tokens `offsets_B[i]:offsets_B[i + 1]`.
        totals_B: Bytes of each text.
        content_N: Index in the batch of each content token; None where they are the same.
        control_N: Indices in the batch of the other tokens.
        control_roles_N: Their roles.
    """

    table: ByteTable
    keys_N: np.ndarray
    lengths_N: np.ndarray
    offsets_B: np.ndarray
    totals_B: np.ndarray
    content_N: np.ndarray | None
    control_N: np.ndarray
    control_roles_N: np.ndarray

    @classmethod
    def of(cls, encoded: Encoded, table: ByteTable, *, name: str) -> "Side":
        """Look the tokens up.

        Raises:
            ValueError: an id is out of range.
        """
        keys_N = encoded.ids_N
        if keys_N.size and not 0 <= keys_N.min() <= keys_N.max() < table.num_tokens:
            raise ValueError(
                f"`{name}` ids must be in [0, {table.num_tokens}), "
                f"got {keys_N.min()} to {keys_N.max()}"
            )
        if encoded.prefixed_N.size:
            keys_N = keys_N.copy()
            keys_N[encoded.prefixed_N] += table.num_tokens
        lengths_N = table.lengths_K.take(keys_N)
        control_N = np.flatnonzero(lengths_N == 0) if not lengths_N.all() else _NOTHING
        control_roles_N = table.roles_K[keys_N[control_N]]
        offsets_B, content_N = encoded.offsets_B, None
        if control_N.size:
            content_N = np.flatnonzero(lengths_N).astype(np.int32)
            keys_N, lengths_N = keys_N[content_N], lengths_N[content_N]
            offsets_B = np.searchsorted(content_N, offsets_B)
        totals_B = sums_of(lengths_N, offsets_B)
        return cls(
            table, keys_N, lengths_N, offsets_B, totals_B, content_N, control_N, control_roles_N
        )

    def of_texts(self, is_wanted_B: np.ndarray) -> "Side":
        """The content tokens of some of the texts; `content_N` leads to this side's."""
        counts_B = np.diff(self.offsets_B)
        nothing = {"control_N": self.control_N[:0], "control_roles_N": self.control_roles_N[:0]}
        if is_wanted_B.all():
            return replace(self, content_N=None, **nothing)
        kept_N = np.flatnonzero(np.repeat(is_wanted_B, counts_B)).astype(np.int32)
        return Side(
            self.table,
            self.keys_N[kept_N],
            self.lengths_N[kept_N],
            np.concatenate([[0], np.cumsum(counts_B[is_wanted_B])]),
            self.totals_B[is_wanted_B],
            content_N=kept_N,
            **nothing,
        )

    def bytes(self) -> np.ndarray:
        """What the content tokens spell, uint8, end to end."""
        ends_N = np.cumsum(self.lengths_N, dtype=np.int64)
        shift_N = self.table.starts_K[self.keys_N] - (ends_N - self.lengths_N)
        total = int(ends_N[-1]) if ends_N.size else 0
        return self.table.bytes_N[np.arange(total) + np.repeat(shift_N, self.lengths_N)]


def sums_of(values_N: np.ndarray, offsets_B: np.ndarray) -> np.ndarray:
    """Sum of each text's values, int64; 0 for a text without tokens."""
    sums_B = np.zeros(len(offsets_B) - 1, np.int64)
    filled_B = np.diff(offsets_B) > 0
    if filled_B.any():
        sums_B[filled_B] = np.add.reduceat(values_N, offsets_B[:-1][filled_B], dtype=np.int64)
    return sums_B
