"""Per-token numbers that turn byte comparison into array arithmetic."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from xtoken_jax.text import ByteTokenizer

# A polynomial hash modulo 2**64: a text is the sum of (byte + 1) * MULTIPLIER**position, so the
# hash of a span is the difference of two prefix sums, wherever the tokens are cut.
_MULTIPLIER = 0x9E3779B97F4A7C15
_LOW_BITS = 16


def _powers(count: int, base: int) -> np.ndarray:
    powers = np.full(count, base % (1 << 64), np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


_LOW_POWERS = _powers(1 << _LOW_BITS, _MULTIPLIER)
_HIGH_POWERS = _powers(1 << _LOW_BITS, pow(_MULTIPLIER, 1 << _LOW_BITS, 1 << 64))


def power(positions: np.ndarray) -> np.ndarray:
    """`MULTIPLIER ** positions` modulo 2**64, for byte positions below 2**32."""
    low = _LOW_POWERS[positions & ((1 << _LOW_BITS) - 1)]
    if positions.size and positions.max() >= 1 << _LOW_BITS:
        low = low * _HIGH_POWERS[positions >> _LOW_BITS]
    return low


@dataclass(frozen=True)
class ByteTable:
    """Lengths, hashes and roles of a vocabulary, indexed by token id.

    Attributes:
        lengths_V: int64, bytes that the token contributes; 0 for control tokens.
        hashes_V: uint64, polynomial hash of its bytes at position 0.
        unprefixed_hashes_V: The same without a leading space, 0 for tokens that have none.
        roles_V: int32 bit masks of `Role`.
    """

    lengths_V: np.ndarray
    hashes_V: np.ndarray
    unprefixed_hashes_V: np.ndarray
    roles_V: np.ndarray

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
        within_N = np.arange(len(bytes_N)) - np.repeat(starts_V, lengths_V)
        terms_N = (bytes_N.astype(np.uint64) + np.uint64(1)) * power(within_N)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms_N, dtype=np.uint64)])
        hashes_V = sums[starts_V + lengths_V] - sums[starts_V]
        spaced_V = np.array([content.startswith(b" ") for content in contents])
        # Dropping the first byte shifts the rest down one position: divide by the multiplier.
        inverse = np.uint64(pow(_MULTIPLIER, -1, 1 << 64))
        unprefixed_V = (hashes_V - np.uint64(ord(" ") + 1)) * inverse
        roles_V = np.zeros(len(contents), np.int32)
        roles_V[list(tokenizer.roles)] = [int(role) for role in tokenizer.roles.values()]
        return cls(
            lengths_V,
            hashes_V,
            np.where(spaced_V, unprefixed_V, np.uint64(0)),
            roles_V,
        )


_TABLES: WeakKeyDictionary[ByteTokenizer, ByteTable] = WeakKeyDictionary()
