"""Bytes of tokens on real tokenizers and on small ones made for their traps."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from xtoken_jax.errors import XTokenError
from xtoken_jax.text import ByteTokenizer, Role
from xtoken_jax.text.pieces import byte_alphabet

LOSSLESS = ["llama3", "llama4", "tekken", "mistral-v3", "deepseek"]
ANY_TEXT = st.text(max_size=80) | st.text(alphabet="0189aé ,.\r\n\x00日👩‍ع", max_size=80)


def text_bytes(tokenizer, encoded, index=0):
    """The bytes of one encoded text, without the space that a tokenizer puts before it."""
    content = tokenizer.bytes_of(encoded[index])
    first, last = encoded.offsets_B[index], encoded.offsets_B[index + 1]
    return (
        content[1:]
        if ((encoded.prefixed_N >= first) & (encoded.prefixed_N < last)).any()
        else content
    )


@pytest.mark.parametrize("name", LOSSLESS)
def test_tokens_spell_exactly_the_text(tokenizer, name):
    side = tokenizer(name)

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(ANY_TEXT, min_size=1, max_size=3))
    def check(texts):
        encoded = side.encode(texts)
        for index, text in enumerate(texts):
            assert text_bytes(side, encoded, index) == text.encode(), repr(text)

    check()


def test_qwen_normalises_and_nothing_else(tokenizer):
    import unicodedata

    qwen = tokenizer("qwen3")
    for text in ("cafe\u0301 \u212b 201", "plain 201\r\n"):
        normal = unicodedata.normalize("NFC", text)
        assert text_bytes(qwen, qwen.encode([text])) == normal.encode()


def test_smollm_lacks_some_bytes_and_drops_them(tokenizer):
    smollm = tokenizer("smollm2-135m")
    single = {content for content in smollm.token_bytes if len(content) == 1}
    assert 256 - len(single) == 21
    assert text_bytes(smollm, smollm.encode(["a\x04b 201"])) == b"ab 201"


def test_llama3_has_tokens_that_are_not_utf8(tokenizer):
    def is_utf8(content):
        try:
            content.decode()
        except UnicodeDecodeError:
            return False
        return True

    assert sum(not is_utf8(content) for content in tokenizer("llama3").token_bytes) == 1352


@pytest.mark.parametrize("name", ["llama3", "smollm2-135m", "mistral-v3", "qwen3"])
def test_control_tokens_spelt_in_a_text_stay_text(tokenizer, name):
    side = tokenizer(name)
    text = "<|eot_id|> <|im_end|></s><s> <|endoftext|>"
    encoded = side.encode([text])
    assert text_bytes(side, encoded) == text.encode()
    assert not set(encoded[0].tolist()) & side.roles.keys()


@pytest.mark.parametrize(
    ("name", "bos", "eos"),
    [
        ("llama3", 128000, 128001),
        ("smollm2-135m", None, 2),
        ("qwen3", None, 151643),
        ("mistral-v3", 1, 2),
        ("tekken", 1, 2),
        ("deepseek", None, 1),
    ],
)
def test_bos_and_eos_are_the_tokenizers_own(tokenizer, name, bos, eos):
    side = tokenizer(name)
    assert (side.bos_id, side.eos_id) == (bos, eos)
    ids = side.encode(["hi"], bos=True, eos=True)[0].tolist()
    assert ids[-1] == eos
    assert (ids[0] == bos) == (bos is not None)
    assert side.token_bytes[eos] == b""


def test_a_batch_is_its_texts_end_to_end(tokenizer):
    side = tokenizer("llama3")
    texts = ["one", "", "two three"]
    encoded = side.encode(texts)
    assert len(encoded) == 3
    assert encoded.ids_N.dtype == np.int32
    for index, text in enumerate(texts):
        np.testing.assert_array_equal(encoded[index], side.encode([text])[0])
    assert len(side.encode([])) == 0


def test_pieces_spell_any_bytes(tokenizer):
    contents = [
        b"201",
        b" apples",
        b"\xf0\x9f",
        b" \xe6\x97",
        b"\xff\xfe",
        "日本".encode(),
        b"\x00",
    ]
    for name in ("llama3", "qwen3", "mistral-v3"):
        side = tokenizer(name)
        for content, ids in zip(contents, side.pieces(contents), strict=True):
            assert side.bytes_of(ids) == content, (name, content)
    assert tokenizer("smollm2-135m").pieces([b"\x04", b"a\x04"]) == [[], []]
    assert [len(ids) for ids in tokenizer("smollm2-135m").pieces([b"201"])] == [3]


def small(tmp_path, tokenizer, **declared):
    tmp_path.mkdir(exist_ok=True)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(declared))
    return ByteTokenizer.load(tmp_path)


def byte_level(extra=(), **options):
    vocabulary = {piece: id for id, piece in enumerate(byte_alphabet())}
    vocabulary |= {piece: 256 + i for i, piece in enumerate(extra)}
    merges = [tuple(piece) for piece in extra if len(piece) == 2]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentencepiece(*, byte_fallback=True):
    pieces = ["<unk>", "<s>", "</s>"]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    pieces += ["▁", "a", "b", "▁a", "\n"]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: id for id, piece in enumerate(pieces)},
            [("▁", "a")],
            unk_token="<unk>",
            byte_fallback=byte_fallback,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def test_the_space_that_sentencepiece_puts_before_a_text_is_known(tmp_path):
    side = small(tmp_path, sentencepiece())
    texts = ["ab", " ab", "  ", "é", ""]
    encoded = side.encode(texts)
    for index, text in enumerate(texts):
        assert text_bytes(side, encoded, index) == text.encode()
    assert side.bytes_of(encoded[0]) == b" ab"
    contents = side.contents(encoded)
    for index, text in enumerate(texts):
        own = slice(*encoded.offsets_B[index : index + 2])
        assert b"".join(contents[own]) == text.encode()


def test_the_space_put_before_a_text_comes_after_its_bos(tokenizer):
    mistral = tokenizer("mistral-v3")
    encoded = mistral.encode(["201", "", "x"], bos=True, eos=True)
    assert encoded.prefixed_N.tolist() == [1, encoded.offsets_B[2] + 1]
    for index, text in enumerate(("201", "", "x")):
        assert text_bytes(mistral, encoded, index) == text.encode()


def test_the_space_of_byte_level_is_only_put_before_letters(tmp_path):
    side = small(tmp_path, byte_level(add_prefix_space=True))
    for text in ("ab", " ab", "\n", ""):
        assert text_bytes(side, side.encode([text])) == text.encode(), repr(text)


def test_of_two_tokens_for_one_byte_string_the_emitted_one_counts(tmp_path):
    side = small(tmp_path, sentencepiece())
    newline = [id for id, content in enumerate(side.token_bytes) if content == b"\n"]
    assert len(newline) == 2
    assert side.id_of_bytes[b"\n"] == newline[1]
    assert side.encode(["a\n"])[0][-1] == newline[1]


def test_declared_tokens_have_their_roles_and_added_text_tokens_their_bytes(tmp_path):
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["[END]", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    side = small(tmp_path, tokenizer, eos_token="[END]", pad_token={"content": "<|im_end|>"})
    assert side.roles == {256: Role.EOS, 257: Role.PAD | Role.TURN_END}
    assert side.eos_id == 256
    assert side.token_bytes[256:] == [b"", b"", b"<think>"]
    assert side.num_tokens == 259
    assert side.id_of_role == {Role.EOS: 256, Role.PAD: 257, Role.TURN_END: 257}


def test_holes_between_ids_are_tokens_without_bytes(tmp_path):
    vocabulary = {piece: 2 * id for id, piece in enumerate(byte_alphabet())}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    side = small(tmp_path, tokenizer)
    assert side.num_tokens == 511
    assert side.token_bytes[2 * ord("a")] == b"a"
    assert side.token_bytes[2 * ord("a") + 1] == b""
    assert side.bytes_of(side.encode(["aé"])[0]) == "aé".encode()


def test_fingerprint_is_of_what_decides_tokenisation(tmp_path):
    one = small(tmp_path / "one", byte_level(), eos_token=None)
    two = small(tmp_path / "two", byte_level(["ab"]))
    assert one.fingerprint != two.fingerprint
    path = tmp_path / "one" / "tokenizer.json"
    parsed = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(parsed.items())), indent=3))
    assert ByteTokenizer.load(tmp_path / "one").fingerprint == one.fingerprint
    padded = Tokenizer.from_file(str(path))
    padded.enable_padding()
    padded.save(str(path))
    assert ByteTokenizer.load(tmp_path / "one").fingerprint == one.fingerprint


def test_saving_with_transformers_keeps_the_fingerprint(asset, tmp_path):
    from transformers import AutoTokenizer

    source = asset("smollm2-135m")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path)
    saved, original = ByteTokenizer.load(tmp_path), ByteTokenizer.load(source)
    assert saved.token_bytes == original.token_bytes
    assert saved.fingerprint == original.fingerprint


def test_bos_is_what_is_put_first_and_has_that_role(tmp_path):
    cases = ("$A </s>", None), ("</s> $A", None), ("<s> $A </s>", 256)
    for name, (template, bos) in enumerate(cases):
        tokenizer = byte_level()
        tokenizer.add_special_tokens(["<s>", "</s>"])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 256), ("</s>", 257)]
        )
        side = small(tmp_path / str(name), tokenizer, bos_token="<s>", eos_token="</s>")
        assert (side.bos_id, side.eos_id) == (bos, 257)


def test_without_bos_and_eos_nothing_is_put_around_a_text(tmp_path):
    side = small(tmp_path, byte_level())
    assert (side.bos_id, side.eos_id, side.roles) == (None, None, {})
    assert side.encode(["a"], bos=True, eos=True)[0].tolist() == [ord("a")]


def test_what_a_model_cannot_spell_contributes_nothing(tmp_path):
    tokenizer = sentencepiece(byte_fallback=False)
    side = small(tmp_path, tokenizer)
    assert side.roles[0] == Role.UNK  # <unk> is no added token here
    assert side.bytes_of(side.encode(["a\u65e5b"])[0]) == b" ab"
    assert side.pieces(["a\u65e5".encode(), b"a"]) == [[], [tokenizer.token_to_id("a")]]


def test_unigram_spells_exactly_the_text(tmp_path):
    trainer = trainers.UnigramTrainer(
        vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    prose = ["the red fox ran home over the old bridge", "a dozen apples cost 201 coins"] * 20
    tokenizer.train_from_iterator(prose, trainer)
    side = small(tmp_path, tokenizer, unk_token="<unk>")
    for text in (prose[0], " the old  fox ", "201"):
        assert text_bytes(side, side.encode([text])) == text.encode()
    for content in (b"fox", b" fox", b"201"):
        assert side.bytes_of(side.pieces([content])[0]) == content


def test_display_is_readable_for_any_token(tokenizer):
    llama = tokenizer("llama3")
    assert llama.display(llama.bos_id) == "<|begin_of_text|>"
    assert llama.display(llama.id_of_bytes[b" apples"]) == " apples"
    assert llama.display(llama.id_of_bytes[b"\xf0\x9f"]) == r"\xf0\x9f"


def test_no_tokenizer_file_and_a_broken_one_are_one_line(tmp_path):
    with pytest.raises(XTokenError, match=r"has no tokenizer\.json"):
        ByteTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {')
    with pytest.raises(XTokenError, match=r"tokenizer\.json is not a tokenizer file"):
        ByteTokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"eos_token": {"special": true}}', "\xff"])
def test_a_broken_config_is_named(tmp_path, content):
    small(tmp_path, byte_level())
    (tmp_path / "tokenizer_config.json").write_text(content, encoding="latin-1")
    with pytest.raises(XTokenError, match=r"tokenizer_config\.json must be a JSON object"):
        ByteTokenizer.load(tmp_path)


def test_ends_of_words_in_the_spelling_are_refused(tmp_path):
    parsed = json.loads(byte_level().to_str())
    parsed["model"]["end_of_word_suffix"] = "</w>"
    with pytest.raises(
        XTokenError, match="must spell bytes alone, got `end_of_word_suffix` '</w>'"
    ):
        small(tmp_path, Tokenizer.from_str(json.dumps(parsed)))


def test_a_tokenizer_without_exact_bytes_is_refused(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(XTokenError, match=r"byte-level BPE.*got model WordLevel"):
        small(tmp_path, tokenizer)
