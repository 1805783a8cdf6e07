"""Bytes of tokens on real tokenizers and on small ones made for their traps."""

import json

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from tests.text.small_tokenizers import byte_level, load, sentencepiece, text_bytes
from xtoken_jax.text import ByteTokenizer, Role
from xtoken_jax.text.pieces import byte_alphabet


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


def test_one_text_is_not_taken_for_many(tmp_path):
    with pytest.raises(TypeError, match=r"`texts` must be a list of texts, got the text 'abc'"):
        load(tmp_path, byte_level()).encode("abc")


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


def test_the_space_that_sentencepiece_puts_before_a_text_is_known(tmp_path):
    side = load(tmp_path, sentencepiece())
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
    side = load(tmp_path, byte_level(add_prefix_space=True))
    for text in ("ab", " ab", "\n", ""):
        assert text_bytes(side, side.encode([text])) == text.encode(), repr(text)


def test_of_two_tokens_for_one_byte_string_the_emitted_one_counts(tmp_path):
    side = load(tmp_path, sentencepiece())
    newline = [id for id, content in enumerate(side.token_bytes) if content == b"\n"]
    assert len(newline) == 2
    assert side.id_of_bytes[b"\n"] == newline[1]
    assert side.encode(["a\n"])[0][-1] == newline[1]


def test_declared_tokens_have_their_roles_and_added_text_tokens_their_bytes(tmp_path):
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["[END]", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    side = load(tmp_path, tokenizer, eos_token="[END]", pad_token={"content": "<|im_end|>"})
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
    side = load(tmp_path, tokenizer)
    assert side.num_tokens == 511
    assert side.token_bytes[2 * ord("a")] == b"a"
    assert side.token_bytes[2 * ord("a") + 1] == b""
    assert side.bytes_of(side.encode(["aé"])[0]) == "aé".encode()


def test_fingerprint_is_of_what_decides_tokenisation(tmp_path):
    one = load(tmp_path / "one", byte_level(), eos_token=None)
    two = load(tmp_path / "two", byte_level(["ab"]))
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
        side = load(tmp_path / str(name), tokenizer, bos_token="<s>", eos_token="</s>")
        assert (side.bos_id, side.eos_id) == (bos, 257)


def test_without_bos_and_eos_nothing_is_put_around_a_text(tmp_path):
    side = load(tmp_path, byte_level())
    assert (side.bos_id, side.eos_id, side.roles) == (None, None, {})
    assert side.encode(["a"], bos=True, eos=True)[0].tolist() == [ord("a")]


def test_what_a_model_cannot_spell_contributes_nothing(tmp_path):
    tokenizer = sentencepiece(byte_fallback=False)
    side = load(tmp_path, tokenizer)
    assert side.roles[0] == Role.UNK  # <unk> is no added token here
    assert side.bytes_of(side.encode(["a\u65e5b"])[0]) == b" ab"
    assert side.pieces(["a\u65e5".encode(), b"a"]) == [[], [tokenizer.token_to_id("a")]]


def test_display_is_readable_for_any_token(tokenizer):
    llama = tokenizer("llama3")
    assert llama.display(llama.bos_id) == "<|begin_of_text|>"
    assert llama.display(llama.id_of_bytes[b" apples"]) == " apples"
    assert llama.display(llama.id_of_bytes[b"\xf0\x9f"]) == r"\xf0\x9f"


def test_byte_ends_are_places_in_the_text(tokenizer):
    mistral = tokenizer("mistral-v3")
    encoded = mistral.encode(["201 é", "", "a"], bos=True, eos=True)
    ends = mistral.byte_ends(encoded)
    assert ends.dtype == np.int64
    rows = [ends[slice(*encoded.offsets_B[i : i + 2])].tolist() for i in range(3)]
    # bos, the space put before (now empty), 2, 0, 1, " é" of three bytes, eos.
    assert rows == [[0, 0, 1, 2, 3, 6, 6], [0, 0], [0, 1, 1]]
    assert mistral.byte_ends(mistral.encode([])).tolist() == []


def test_byte_ends_equal_the_lengths_of_the_contents(tokenizer):
    for name in ("llama3", "smollm2-135m", "mistral-v3"):
        side = tokenizer(name)
        texts = ["👩‍🚀 201 naïve\n", "x" * 40, "  日本"]
        encoded = side.encode(texts, eos=True)
        contents = side.contents(encoded)
        for index in range(len(texts)):
            own = slice(*encoded.offsets_B[index : index + 2])
            expected = np.cumsum([len(content) for content in contents[own]])
            np.testing.assert_array_equal(side.byte_ends(encoded)[own], expected)


def test_lengths_are_those_of_the_bytes(tokenizer):
    llama = tokenizer("llama3")
    assert llama.lengths_V.dtype == np.int32
    assert llama.lengths_V.tolist() == [len(content) for content in llama.token_bytes]
    assert llama.lengths_V is llama.lengths_V  # computed once
