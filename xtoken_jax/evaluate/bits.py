"""Bits per byte: how well a model predicts text, whatever its tokenizer."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from xtoken_jax.evaluate.reading import Reading, read_texts
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.text import ByteTokenizer, Encoded

_DIGITS = b"0123456789"


@dataclass(frozen=True)
class BitsPerByte:
    """Bits that a model needs for a byte of held-out text, and for a byte that is a digit.

    A token's bits are spread evenly over its bytes. `digits` is NaN where the texts have none.
    """

    all: float
    digits: float
    num_bytes: int
    num_digit_bytes: int

    @classmethod
    def total(cls, parts: Sequence["BitsPerByte"]) -> "BitsPerByte":
        """Of all bytes of several readings, of which each has at least one."""
        num_bytes = sum(part.num_bytes for part in parts)
        num_digits = sum(part.num_digit_bytes for part in parts)
        bits = sum(part.all * part.num_bytes for part in parts)
        # Without digits a part's number is NaN, which no sum may meet.
        digit_bits = sum(p.digits * p.num_digit_bytes for p in parts if p.num_digit_bytes)
        digits = digit_bits / num_digits if num_digits else math.nan
        return cls(bits / num_bytes, digits, num_bytes, num_digits)

    def to_dict(self) -> dict[str, float | int | None]:
        """As plain values, for JSON, which has no NaN: None stands for it."""
        values = asdict(self)
        return {k: None if math.isnan(value) else value for k, value in values.items()}


def bits_per_byte(
    model: Decoder,
    tokenizer: ByteTokenizer,
    texts: Sequence[str],
    *,
    batch_size: int,
    length: int,
    block_tokens: int,
) -> BitsPerByte:
    """Read texts and count: `bits_of(read_texts(...))`, which see."""
    reading = read_texts(
        model,
        tokenizer,
        texts,
        batch_size=batch_size,
        length=length,
        block_tokens=block_tokens,
    )
    return bits_of(reading)


def bits_of(reading: Reading) -> BitsPerByte:
    """Bits per byte of what a model has read.

    Raises:
        ValueError: there is no byte in all texts.
    """
    if not reading.content:
        count = len(reading.encoded)
        raise ValueError(f"`texts` must hold at least one byte, got {count} empty ones")
    num_bytes = len(reading.content)
    num_digits = sum(byte in _DIGITS for byte in reading.content)
    bits_N = reading.log_probs_N.astype(np.float64) / -math.log(2)
    digit_bits = bits_N @ _digit_share(reading.encoded, reading.tokenizer)
    return BitsPerByte(
        float(bits_N.sum() / num_bytes),
        float(digit_bits / num_digits) if num_digits else math.nan,
        num_bytes,
        num_digits,
    )


def _digit_share(encoded: Encoded, tokenizer: ByteTokenizer) -> np.ndarray:
    """Which part of each token's bytes are digits, a prefix space not counted among them."""
    return np.array(
        [
            sum(byte in _DIGITS for byte in content) / max(len(content), 1)
            for content in tokenizer.contents(encoded)
        ]
    )
