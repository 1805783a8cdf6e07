"""WordPiece: what its pieces stand for, and bytes spelled in the middle of a word."""

import pytest
from tokenizers import pre_tokenizers

from tests.text.small_tokenizers import ids_of, load, wordpiece
from xtoken_jax.errors import XTokenError
from xtoken_jax.text import Role


@pytest.fixture
def bert(tmp_path):
    return load(tmp_path, wordpiece(), unk_token="[UNK]", pad_token="[PAD]")


def test_a_word_begins_with_a_space_and_a_continuation_does_not(bert):
    encoded = bert.encode(["the fox unhapped,", " the"])
    assert bert.bytes_of(encoded[0]) == b" the fox unhapped ,"
    assert b"".join(bert.contents(encoded)) == b"the fox unhapped , the"
    # Only the first text lacks the space that its first word begins with.
    assert encoded.prefixed_N.tolist() == [0]
    pieces = [bert.token_bytes[id] for id in ids_of(encoded)]
    assert pieces[2:-1][0].startswith(b" unh")
    assert not pieces[2:-1][1].startswith(b" ")


def test_control_tokens_have_roles(bert):
    assert bert.roles == {
        0: Role.PAD,
        1: Role.UNK,
        2: Role.BOS,
        3: Role.EOS,
        4: Role.NONE,
    }
    assert bert.bos_id == 2
    encoded = bert.encode(["the \u65e5 fox"])
    assert bert.contents(encoded) == [b"the", b"", b" fox"]


def test_control_tokens_between_words(bert):
    encoded = bert.encode(["[CLS] the fox [SEP]fox"], parse_control=True)
    assert bert.contents(encoded) == [b"", b" the", b" fox", b"", b"fox"]
    assert not set(ids_of(bert.encode(["[CLS] the fox [SEP]fox"]))) & {2, 3}


def test_decoding_joins_words_as_the_bytes_say(bert):
    text = "the singers sang 201 songs, louder & louder!"
    ids = ids_of(bert.encode([text]))
    assert bert.bytes_of(ids).decode() == " " + bert._engines.tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("content", "pieces"),
    [
        (b" fox", [" fox"]),
        (b" fox ran", [" fox", " ran"]),
        (b" ,", [" ,"]),
        (b"201", ["2", "0", "1"]),  # mid-word: `##2`, `##0`, `##1`
        (b"er the", ["er", " the"]),
        (b",", None),  # no `##,`
        (b" Fox", None),  # the normaliser has no capitals
        (b" the  fox", None),  # nor two spaces
        (b"\xff", None),
        (b" [SEP]", None),
        (b" \xe6\x97\xa5", None),
    ],
)
def test_pieces_spell_the_bytes_or_nothing(bert, content, pieces):
    (ids,) = bert.pieces([content])
    assert [bert.display(id) for id in ids] == (pieces or [])
    assert bert.bytes_of(ids) == (content if pieces else b"")


def test_the_longest_continuation_wins(tmp_path):
    tokenizer = wordpiece()
    side = load(tmp_path, tokenizer)
    word = next(p for p in tokenizer.get_vocab() if p.startswith("##") and len(p) == 4)
    (ids,) = side.pieces([word[2:].encode()])
    assert ids == [tokenizer.token_to_id(word)]


def test_case_is_kept_where_the_tokenizer_keeps_it(tmp_path):
    side = load(tmp_path, wordpiece(lowercase=False))
    assert side.contents(side.encode(["A fox"])) == [b"A", b" fox"]


def test_wordpiece_that_does_not_cut_at_white_space_is_refused(tmp_path):
    tokenizer = wordpiece()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(XTokenError, match="or WordPiece, got model WordPiece with"):
        load(tmp_path, tokenizer)
