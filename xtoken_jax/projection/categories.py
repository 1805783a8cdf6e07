"""Kinds of tokens: numerals by length, punctuation, letters, ..."""

import re

import numpy as np

from xtoken_jax.text import ByteTokenizer

# The first pattern that a whole token matches names its category.
_ASCII_PATTERNS = {
    "1-digit numerals": rb"[0-9]",
    "2-digit numerals": rb"[0-9]{2}",
    "3-digit numerals": rb"[0-9]{3}",
    "4+-digit numerals": rb"[0-9]{4,}",
    "numerals with a space": rb" [0-9]+",
    "ASCII punctuation": rb" ?[!-/:-@\[-`{-~]+",
    "ASCII letters": rb" ?[A-Za-z]+",
    "whitespace": rb"[ \t-\r]+",
    "mixed ASCII": rb"[\x00-\x7f]+",
}
_ASCII = re.compile(b"|".join(b"(%b)" % pattern for pattern in _ASCII_PATTERNS.values()))

NON_ASCII, NOT_UTF8, CONTROL = "non-ASCII text", "not UTF-8", "control"
CATEGORIES = (*_ASCII_PATTERNS, NON_ASCII, NOT_UTF8, CONTROL)
NUM_ORDINARY = len(CATEGORIES) - 1  # all but control tokens, which come last


def categories_of(tokenizer: ByteTokenizer) -> np.ndarray:
    """The index in `CATEGORIES` of each id's token, -1 for an id without a token; int64."""
    categories_V = np.array([_index(content) for content in tokenizer.token_bytes], np.int64)
    categories_V[list(tokenizer.roles)] = CATEGORIES.index(CONTROL)
    return categories_V


def _index(content: bytes) -> int:
    if not content:
        return -1
    if match := _ASCII.fullmatch(content):
        return (match.lastindex or 0) - 1
    try:
        content.decode()
    except UnicodeDecodeError:
        return CATEGORIES.index(NOT_UTF8)
    return CATEGORIES.index(NON_ASCII)
