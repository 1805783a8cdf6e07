"""Per-token numbers that turn byte comparison into array arithmetic."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from xtoken_jax.text import ByteTokenizer

# A polynomial hash modulo 2**64: a text is the sum of (byte + 1) * MULTIPLIER**position, so its
# hash does not depend on where the tokens are cut.
_MULTIPLIER = 0x9E3779B97F4A7C15
_LOW_BITS = 18  # 2 MB a table: a block of the byte path stays within the first


def _powers(count: int, base: int) -> np.ndarray:
    powers = np.full(count, base % (1 << 64), np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


_LOW_POWERS = _powers(1 << _LOW_BITS, _MULTIPLIER)
_HIGH_POWERS = _powers(1 << _LOW_BITS, pow(_MULTIPLIER, 1 << _LOW_BITS, 1 << 64))


def power(positions: np.ndarray, *, largest: int | None = None) -> np.ndarray:
    """`MULTIPLIER ** positions` modulo 2**64, for byte positions below 2**36.

    Args:
        positions: Not negative.
        largest: A bound on them, where the caller knows one.
    """
    if largest is None:
        largest = int(positions.max()) if positions.size else 0
    if largest < 1 << _LOW_BITS:
        return _LOW_POWERS.take(positions)
    return _LOW_POWERS[positions & ((1 << _LOW_BITS) - 1)] * _HIGH_POWERS[positions >> _LOW_BITS]


@dataclass(frozen=True)
class ByteTable:
    """Lengths, hashes, bytes and roles of a vocabulary, by key.

    The key of a token is its id; `id + num_tokens` is the same token without its first byte, as
    where a tokenizer put a space before the text.

    Attributes:
        lengths_K: int32, bytes that the token contributes; 0 for control tokens.
        hashes_K: uint64, polynomial hash of its bytes at position 0.
        starts_K: int64, where its bytes begin in `bytes_N`.
        bytes_N: uint8, the bytes of all tokens, end to end.
        roles_K: int32 bit masks of `Role`.
    """

    lengths_K: np.ndarray
    hashes_K: np.ndarray
    starts_K: np.ndarray
    bytes_N: np.ndarray
    roles_K: np.ndarray

    @property
    def num_tokens(self) -> int:
        """One past the largest id."""
        return len(self.lengths_K) // 2

    @classmethod
    def of(cls, tokenizer: ByteTokenizer) -> "ByteTable":
        """The table of a tokenizer, computed once and kept as long as the tokenizer lives."""
        if tokenizer not in _TABLES:
            _TABLES[tokenizer] = cls._build(tokenizer)
        return _TABLES[tokenizer]

    @classmethod
    def _build(cls, tokenizer: ByteTokenizer) -> "ByteTable":
        contents = tokenizer.token_bytes
        lengths_V = np.fromiter(map(len, contents), np.int64, len(contents))
        bytes_N = np.frombuffer(b"".join(contents), np.uint8)
        starts_V = np.cumsum(lengths_V) - lengths_V
        lengths_K = np.concatenate([lengths_V, np.maximum(lengths_V - 1, 0)])
        starts_K = np.concatenate([starts_V, starts_V + np.minimum(lengths_V, 1)])
        within_N = np.arange(len(bytes_N)) - np.repeat(starts_V, lengths_V)
        terms_N = (bytes_N.astype(np.uint64) + np.uint64(1)) * power(within_N)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms_N, dtype=np.uint64)])
        hashes_K = sums[starts_K + lengths_K] - sums[starts_K]
        # Dropping the first byte shifts the rest down one position: divide by the multiplier.
        hashes_K[len(contents) :] *= np.uint64(pow(_MULTIPLIER, -1, 1 << 64))
        roles_K = np.zeros(2 * len(contents), np.int32)
        roles_K[list(tokenizer.roles)] = [int(role) for role in tokenizer.roles.values()]
        return cls(lengths_K.astype(np.int32), hashes_K, starts_K, bytes_N, roles_K)


_TABLES: WeakKeyDictionary[ByteTokenizer, ByteTable] = WeakKeyDictionary()
