"""SentencePiece Unigram, trained here: bytes of its pieces, and normalisers that change a text."""

import unicodedata

import pytest
from tokenizers import Regex, normalizers

from tests.text.small_tokenizers import PROSE, ids_of, load, text_bytes, unigram


@pytest.fixture(params=[True, False], ids=["byte fallback", "no byte fallback"])
def side(request, tmp_path):
    return load(tmp_path, unigram(byte_fallback=request.param), unk_token="<unk>")


def test_it_spells_exactly_the_text(side):
    for text in (*PROSE[:5], " the old  fox ", "201", ""):
        encoded = side.encode([text])
        assert text_bytes(side, encoded) == text.encode()
        assert side.bytes_of(encoded[0]).startswith(b" ") == bool(text)
    assert len(side.encode([PROSE[0]])[0]) < len(PROSE[0])  # the training found pieces


def test_the_space_before_a_text_is_put_only_where_there_is_none(side):
    encoded = side.encode(["fox", " fox"], bos=True)
    assert ids_of(encoded, 0) == ids_of(encoded, 1)
    assert encoded.prefixed_N.tolist() == [0]


def test_pieces_go_in_the_middle_of_a_text(side):
    for content in (b"fox", b" fox", b"201", b"<b>", b" "):
        (ids,) = side.pieces([content])
        assert side.bytes_of(ids) == content


def test_byte_pieces_spell_what_no_other_piece_does(tmp_path):
    side = load(tmp_path, unigram())
    content = "日".encode()
    encoded = side.encode(["日"])
    assert [side.token_bytes[id] for id in ids_of(encoded)[1:]] == [
        content[i : i + 1] for i in range(3)
    ]
    assert [side.bytes_of(ids) for ids in side.pieces([b"\xff\xfe", content])] == [
        b"\xff\xfe",
        content,
    ]
    # Only where the model falls back to bytes do such names stand for them.
    without = load(tmp_path / "without", unigram(byte_fallback=False))
    assert without.pieces([content, b"\n"]) == [[], []]


def test_a_normaliser_changes_the_text_and_the_tokens_spell_the_changed_one(tmp_path):
    tokenizer = unigram()
    # What the converters of T5's and XLM-R's tables come to, but for a few characters of NFKC.
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    side = load(tmp_path, tokenizer)
    texts = ["\ufb01x  201", "２０１ \u212b</s>", "plain 201"]
    encoded = side.encode(texts)
    for index, text in enumerate(texts):
        normal = unicodedata.normalize("NFKC", text).replace("  ", " ").encode()
        assert text_bytes(side, encoded, index) == normal
        assert side.byte_ends(encoded)[encoded.offsets_B[index + 1] - 1] == len(normal)
    # Bytes are spelled past the normaliser.
    assert side.bytes_of(side.pieces(["\ufb01".encode()])[0]) == "\ufb01".encode()


def charsmap(key: bytes, replacement: bytes) -> bytes:
    """SentencePiece's compiled normaliser for one character of three bytes.

    A double array in the format of darts-clone: from the node of a prefix, the next byte leads to
    the place `node ^ byte`, whose unit repeats the byte as its label and says how far the children
    are. One table has every place at a distance of its own.
    """
    units, node = [0] * 0x800, 0
    for byte, distance in zip(key, (0x100, 0x200, 0x400), strict=True):
        place = node ^ byte
        units[place] = byte | distance << 10
        node = place ^ distance
    units[place] |= 1 << 8  # a key ends here; the leaf's value 0 is where its replacement begins
    table = b"".join(unit.to_bytes(4, "little") for unit in units)
    return len(table).to_bytes(4, "little") + table + replacement + b"\0"


def test_the_compiled_normaliser_of_sentencepiece(tmp_path):
    tokenizer = unigram()
    tokenizer.normalizer = normalizers.Precompiled(charsmap("\ufb01".encode(), b"fi"))
    side = load(tmp_path, tokenizer)
    encoded = side.encode(["the \ufb01x ﬂ"])
    assert text_bytes(side, encoded) == "the fix ﬂ".encode()
