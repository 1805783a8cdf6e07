"""The paper's lossy comparison."""

import pytest

from tests.tiny import tiny_tokenizer
from xtoken_jax.projection.canonical import canonical_bytes, exact_counterparts
from xtoken_jax.text import ByteTokenizer


@pytest.mark.parametrize(
    ("content", "canonical"),
    [
        (b" ,", b","),
        (b" .", b"."),
        (b" ;", b";"),
        (b" :", b":"),
        (b"_:", b":"),
        (b" !", b" !"),
        (b" ,,", b" ,,"),
        (b"_name", b" name"),
        (b"__name", b" _name"),
        (b"a_", b"a_"),
        (b"\t", b"\n"),
        (b"\t\t", b"\t\t"),
        (b" \n", b"\n"),
        (b"  \n", b"  \n"),
        (rb"\n", b"\n"),
        (rb'\n",', b'\n",'),
        (b"\xf0\x9f", b"\xf0\x9f"),
    ],
)
def test_rules(content, canonical):
    assert canonical_bytes(content) == canonical


class Vocabulary:
    """As much of a tokenizer as equality needs."""

    def __init__(self, *contents):
        self.token_bytes = [*contents]
        self.id_of_bytes = {content: id for id, content in enumerate(contents) if content}


def test_equal_bytes_come_before_equal_forms_and_a_form_before_its_variants():
    student = Vocabulary(b" ,", b",", b"_,", b"", b"\t", b" \n", b"x")
    teacher = Vocabulary(b"", b" ,", b",", b" \n", rb"\n")
    assert exact_counterparts(student, teacher, "exact") == [1, 2, -1, -1, -1, 3, -1]
    # "_," is like "," itself rather than like " ,"; of the newline's variants the first stands.
    assert exact_counterparts(student, teacher, "paper") == [1, 2, 2, -1, 3, 3, -1]


def test_unknown_rules_are_refused(tmp_path):
    side = ByteTokenizer.load(tiny_tokenizer(tmp_path, packs_digits=True))
    with pytest.raises(ValueError, match="`canonicalization` must be one of"):
        exact_counterparts(side, side, "nfc")
