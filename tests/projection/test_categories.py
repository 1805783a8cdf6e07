"""Kinds of tokens."""

import collections

import pytest

from xtoken_jax.projection.categories import CATEGORIES, _index, categories_of


@pytest.mark.parametrize(
    ("content", "category"),
    [
        (b"7", "1-digit numerals"),
        (b"42", "2-digit numerals"),
        (b"201", "3-digit numerals"),
        (b"2024", "4+-digit numerals"),
        (b" 12", "numerals with a space"),
        ("٣".encode(), "non-ASCII text"),  # a digit, but not ASCII
        (b"));", "ASCII punctuation"),
        (b" {", "ASCII punctuation"),
        (b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "ASCII punctuation"),
        (b"apples", "ASCII letters"),
        (b" Apples", "ASCII letters"),
        (b" ", "whitespace"),
        (b"\r\n\t\v\f ", "whitespace"),
        (b"  a", "mixed ASCII"),
        (b");\n", "mixed ASCII"),
        (b"x1", "mixed ASCII"),
        (b"-1", "mixed ASCII"),
        (b" 1 ", "mixed ASCII"),
        (b"\x00", "mixed ASCII"),
        ("é".encode(), "non-ASCII text"),
        ("\u00a0".encode(), "non-ASCII text"),
        (b"\xf0\x9f", "not UTF-8"),
        (b"a\x80", "not UTF-8"),
    ],
)
def test_every_kind(content, category):
    assert CATEGORIES[_index(content)] == category


def test_the_vocabulary_of_llama3(tokenizer):
    categories = categories_of(tokenizer("llama3"))
    counts = collections.Counter(CATEGORIES[index] for index in categories)
    assert {name: counts[name] for name in CATEGORIES} == {
        "1-digit numerals": 10,
        "2-digit numerals": 100,
        "3-digit numerals": 1000,
        "4+-digit numerals": 0,
        "numerals with a space": 0,
        "ASCII punctuation": 3583,
        "ASCII letters": 71202,
        "whitespace": 426,
        "mixed ASCII": 21525,
        "non-ASCII text": 28802,
        "not UTF-8": 1352,
        "control": 256,
    }


def test_ids_without_a_token_have_no_category(tokenizer):
    side = tokenizer("deepseek")
    holes = [i for i, content in enumerate(side.token_bytes) if not content and i not in side.roles]
    categories = categories_of(side)
    assert (categories[holes] == -1).all()
    assert (categories == -1).sum() == len(holes)
