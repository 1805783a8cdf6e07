"""Bits per byte: how well a model predicts text, whatever its tokenizer."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import jax
import numpy as np
from flax import nnx

from xtoken_jax.data import padded_rows
from xtoken_jax.errors import XTokenError
from xtoken_jax.losses import ModelOutput, next_token_log_probs
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.processes import gathered
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

    def to_dict(self) -> dict[str, float | int | None]:
        """As plain values, for JSON, which has no NaN: None stands for it."""
        values = asdict(self)
        return {k: None if math.isnan(value) else value for k, value in values.items()}


def fitting_texts(
    texts: Sequence[str], tokenizers: Sequence[ByteTokenizer], *, length: int
) -> list[str]:
    """The texts that fit whole in `length` tokens of every tokenizer, so that all read the same."""
    fits = np.ones(len(texts), bool)
    for tokenizer in tokenizers:
        # One more for the token that begins a document.
        fits &= np.diff(tokenizer.encode(texts).offsets_B) < length
    return [text for text, fit in zip(texts, fits, strict=True) if fit]


def bits_per_byte(
    model: Decoder,
    tokenizer: ByteTokenizer,
    texts: Sequence[str],
    *,
    batch_size: int,
    length: int,
    block_tokens: int,
) -> BitsPerByte:
    """Evaluate a model on texts with its own tokenizer.

    Each text follows the tokenizer's bos, or its eos where it has no bos, so that the first
    token is predicted too and models with and without a bos are compared on the same bytes.

    Args:
        model: Has at least as many rows as the tokenizer has tokens.
        tokenizer: The model's.
        texts: Each must fit in `length` tokens: see `fitting_texts`.
        batch_size: Texts at a time.
        length: Tokens a text is padded to.
        block_tokens: See `losses.next_token_log_probs`.

    Raises:
        XTokenError: the tokenizer has neither bos nor eos, or more tokens than the model has rows.
        ValueError: a text does not fit, or there is no byte in all of them.
    """
    content = "".join(texts).encode()
    if not content:
        raise ValueError(f"`texts` must hold at least one byte, got {len(texts)} empty ones")
    start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    if start is None:
        raise XTokenError(f"tokenizer {tokenizer.name} must have a bos or an eos, got neither")
    if model.vocab_size < tokenizer.num_tokens:
        raise XTokenError(
            f"model must have a row for each of the {tokenizer.num_tokens} tokens of "
            f"{tokenizer.name}, got {model.vocab_size}"
        )
    encoded = tokenizer.encode(texts)
    rows = [np.concatenate([[start], encoded[i]]).astype(np.int32) for i in range(len(texts))]
    if longest := max((len(row) for row in rows if len(row) > length), default=0):
        raise ValueError(f"`length` must be at least {longest} for these texts, got {length}")
    graph, state = nnx.split(model)
    nats_of_batch = []
    for batch in padded_rows(rows, batch_size=batch_size, length=length):
        log_probs_BS = _log_probs(
            graph, state, batch, num_tokens=tokenizer.num_tokens, block_tokens=block_tokens
        )
        is_target_BS = batch["segment_ids_BS"][:, 1:] > 0
        nats_of_batch.append(-gathered(log_probs_BS).astype(np.float64)[:, :-1][is_target_BS])
    bits_N = np.concatenate(nats_of_batch) / math.log(2)
    num_digits = sum(byte in _DIGITS for byte in content)
    digit_bits = bits_N @ _digit_share(encoded, tokenizer)
    return BitsPerByte(
        float(bits_N.sum() / len(content)),
        float(digit_bits / num_digits) if num_digits else math.nan,
        len(content),
        num_digits,
    )


@partial(jax.jit, static_argnames=("graph", "num_tokens", "block_tokens"))
def _log_probs(graph, state, batch, *, num_tokens: int, block_tokens: int):
    model = nnx.merge(graph, state)
    output = ModelOutput(model(**batch), model.unembedding_VD, batch["ids_BS"])
    return next_token_log_probs(output, num_tokens=num_tokens, block_tokens=block_tokens)


def _digit_share(encoded: Encoded, tokenizer: ByteTokenizer) -> np.ndarray:
    """Which part of each token's bytes are digits, a prefix space not counted among them."""
    return np.array(
        [
            sum(byte in _DIGITS for byte in content) / max(len(content), 1)
            for content in tokenizer.contents(encoded)
        ]
    )
