"""Texts as a model reads them on its own: whole, after the token that begins a document."""

from collections.abc import Sequence

import numpy as np

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.text import ByteTokenizer, Encoded


def fitting_texts(
    texts: Sequence[str], tokenizers: Sequence[ByteTokenizer], *, length: int
) -> list[str]:
    """The texts that fit whole in `length` tokens of every tokenizer, so that all read the same."""
    fits = np.ones(len(texts), bool)
    for tokenizer in tokenizers:
        # One more for the token that begins a document.
        fits &= np.diff(tokenizer.encode(texts).offsets_B) < length
    return [text for text, fit in zip(texts, fits, strict=True) if fit]


def started_rows(
    encoded: Encoded, model: Decoder, tokenizer: ByteTokenizer, *, length: int | None = None
) -> list[np.ndarray]:
    """The tokens of each text behind the tokenizer's bos, or its eos where it has no bos.

    Raises:
        XTokenError: the tokenizer has neither bos nor eos, or more tokens than the model has rows.
        ValueError: a text has more than `length` tokens, the first included.
    """
    start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    if start is None:
        raise XTokenError(f"tokenizer {tokenizer.name} must have a bos or an eos, got neither")
    check_vocabulary(model, tokenizer)
    rows = [np.concatenate([[start], encoded[i]]).astype(np.int32) for i in range(len(encoded))]
    longest = max(map(len, rows), default=0)
    if length is not None and longest > length:
        raise ValueError(f"`length` must be at least {longest} for these texts, got {length}")
    return rows


def check_vocabulary(model: Decoder, tokenizer: ByteTokenizer) -> None:
    """The model must have a row for each token.

    Raises:
        XTokenError: it has not.
    """
    if model.vocab_size < tokenizer.num_tokens:
        raise XTokenError(
            f"model must have a row for each of the {tokenizer.num_tokens} tokens of "
            f"{tokenizer.name}, got {model.vocab_size}"
        )
