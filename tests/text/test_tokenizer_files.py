"""Broken and unfit tokenizer directories: one line that names the file and the rule."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.text.small_tokenizers import byte_level, load
from xtoken_jax.errors import XTokenError
from xtoken_jax.text import ByteTokenizer


def message_of(directory) -> str:
    with pytest.raises(XTokenError) as caught:
        ByteTokenizer.load(directory)
    message = str(caught.value)
    assert "\n" not in message
    assert str(directory) in message
    return message


def test_a_directory_without_any_tokenizer(tmp_path):
    assert "but has no tokenizer.json, no other vocabulary;" in message_of(tmp_path)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["tokenizer.model", "tokenizer_config.json"], "tokenizer.model, tokenizer_config.json"),
        (["vocab.txt", "tokenizer_config.json"], "vocab.txt, tokenizer_config.json"),
        (["vocab.json", "merges.txt"], "vocab.json"),
        (["tekken.json"], "tekken.json"),
    ],
)
def test_a_slow_tokenizer_is_told_from_none(tmp_path, files, named):
    for name in files:
        (tmp_path / name).write_text("{}")
    message = message_of(tmp_path)
    assert "must be a fast tokenizer" in message
    assert f"only the slow tokenizer's {named};" in message
    assert "save_pretrained writes one" in message


@pytest.mark.parametrize(
    "model",
    [
        {"type": "BPE", "vocab": {}, "merges": []},
        {"type": "Unigram", "vocab": [], "unk_id": None},
        {
            "type": "WordPiece",
            "vocab": {},
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
    ],
    ids=lambda model: model["type"],
)
def test_a_tokenizer_without_tokens(tmp_path, model):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    assert "tokenizer.json: must have a vocabulary, but `model.vocab` is empty" in message_of(
        tmp_path
    )


BPE = {"type": "BPE", "vocab": {"a": 0}, "merges": []}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not JSON",
        "[]",
        "{}",
        '{"model": {',
        json.dumps({"version": "1.0", "added_tokens": []}),
        json.dumps({"model": 3}),
        json.dumps({"model": {"type": "BPE"}}),
        json.dumps({"model": {"type": "Markov", "vocab": {"a": 0}}}),
        json.dumps({"model": {**BPE, "vocab": ["a"]}}),
        json.dumps({"model": {**BPE, "vocab": {"a": "zero"}}}),
        json.dumps({"model": {**BPE, "merges": ["a b"]}}),
        json.dumps({"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}}),
        json.dumps({"model": BPE, "added_tokens": 3}),
        json.dumps({"model": BPE, "normalizer": {"type": "Rot13"}}),
    ],
)
def test_a_broken_file(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    assert "must be a tokenizer.json that the tokenizers library reads: " in message_of(tmp_path)


def test_a_real_file_cut_short(tmp_path):
    whole = byte_level().to_str().encode()
    (tmp_path / "tokenizer.json").write_bytes(whole[: len(whole) // 2])
    assert "tokenizer.json: must be a tokenizer.json" in message_of(tmp_path)


def test_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b'{"version": "\xff"}')
    assert "tokenizer.json: 'utf-8' codec can't decode" in message_of(tmp_path)


def test_the_oldest_files_do_not_name_the_type_of_the_model(tmp_path):
    side = load(tmp_path, byte_level())
    parsed = json.loads((tmp_path / "tokenizer.json").read_text())
    del parsed["model"]["type"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(parsed))
    again = ByteTokenizer.load(tmp_path)
    assert again.token_bytes == side.token_bytes
    assert again.fingerprint == side.fingerprint


@pytest.mark.parametrize("content", ["{", "[]", '{"eos_token": {"special": true}}', "\xff"])
def test_a_broken_config_is_named(tmp_path, content):
    load(tmp_path, byte_level())
    (tmp_path / "tokenizer_config.json").write_text(content, encoding="latin-1")
    assert "tokenizer_config.json must be a JSON object" in message_of(tmp_path)


@pytest.mark.parametrize("mark", ["end_of_word_suffix", "continuing_subword_prefix"])
def test_marks_in_the_spelling_of_bpe_are_refused(tmp_path, mark):
    parsed = json.loads(byte_level().to_str())
    parsed["model"][mark] = "</w>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(parsed))
    assert f"must spell bytes alone, got `{mark}` '</w>'" in message_of(tmp_path)


def test_a_tokenizer_without_exact_bytes_is_refused(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    message = message_of(tmp_path)
    assert "must be byte-level BPE, BPE or Unigram with SentencePiece spaces, or WordPi" in message
    assert "got model WordLevel with pre-tokenizer {'type': 'Whitespace'}" in message
