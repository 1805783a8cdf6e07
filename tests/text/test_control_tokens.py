"""Control tokens: never made by a text, made when asked for, whatever the tokenizer declares."""

import json
import re

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.text.small_tokenizers import (
    byte_level,
    ids_of,
    load,
    sentencepiece,
    text_bytes,
    unigram,
    wordpiece,
)
from xtoken_jax.text import ByteTokenizer, Role

CHATS = {
    "llama3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi 201<|eot_id|>",
    "llama4": "<|begin_of_text|><|header_start|>user<|header_end|>\n\nHi 201<|eot|>",
    "qwen3": "<|im_start|>user\nHi 201<|im_end|>\n",
    "tekken": "<s>[INST]Hi 201[/INST]yes</s>",
    "mistral-v3": "<s>[INST] Hi 201[/INST] yes</s>",
    "deepseek": "<｜begin▁of▁sentence｜><｜User｜>Hi 201<｜Assistant｜>yes<｜end▁of▁sentence｜>",
    "smollm2-135m": "<|im_start|>user\nHi 201<|im_end|>\n",
}
BARE = {
    "llama3": "user\n\nHi 201",
    "llama4": "user\n\nHi 201",
    "qwen3": "user\nHi 201\n",
    "tekken": "Hi 201yes",
    "mistral-v3": " Hi 201 yes",
    "deepseek": "Hi 201yes",
    "smollm2-135m": "user\nHi 201\n",
}


@pytest.mark.parametrize("name", CHATS)
def test_a_rendered_chat_is_parsed_when_asked_for(tokenizer, name):
    side = tokenizer(name)
    parsed = side.encode([CHATS[name]], parse_control=True)
    spelled = [side.display(id) for id in ids_of(parsed) if id in side.roles]
    assert text_bytes(side, parsed) == BARE[name].encode()
    assert spelled == re.findall(r"<[|｜][^>]+>|</?s>|\[/?INST\]", CHATS[name])


@pytest.mark.parametrize("name", CHATS)
def test_the_same_chat_is_text_otherwise_and_parsing_leaves_no_trace(tokenizer, name):
    side = tokenizer(name)
    before = side.encode([CHATS[name]])
    side.encode([CHATS[name]], parse_control=True)
    after = side.encode([CHATS[name]])
    np.testing.assert_array_equal(before.ids_N, after.ids_N)
    assert text_bytes(side, after) == CHATS[name].encode()
    assert not set(ids_of(after)) & side.roles.keys()


def test_bos_is_put_before_a_parsed_text_too(tokenizer):
    mistral = tokenizer("mistral-v3")
    encoded = mistral.encode(["[INST] Hi[/INST]"], bos=True, eos=True, parse_control=True)
    shown = [mistral.display(id) for id in ids_of(encoded)]
    assert shown == ["<s>", "[INST]", " ", " Hi", "[/INST]", "</s>"]
    assert encoded.prefixed_N.tolist() == [2]


def test_a_space_put_after_each_control_token_is_known(tmp_path):
    side = load(tmp_path, sentencepiece())
    encoded = side.encode(["<s>a</s> a", "b<s>"], bos=True, parse_control=True)
    assert [side.display(id) for id in encoded.ids_N.tolist()] == [
        *("<s>", " a", "</s>", " ", " a"),
        *(" ", "b", "<s>"),
    ]
    assert encoded.prefixed_N.tolist() == [1, 3, 5]
    assert side.contents(encoded) == [b"", b"a", b"", b"", b" a", b"", b"b", b""]


def test_the_unknown_token_is_no_place_where_a_space_is_put(tmp_path):
    tokenizer = sentencepiece(byte_fallback=False)
    tokenizer.add_special_tokens(["<unk>"])
    side = load(tmp_path, tokenizer)
    encoded = side.encode(["a日 a"])
    assert side.contents(encoded) == [b"a", b"", b" a"]


@pytest.mark.parametrize(
    ("scheme", "contents"),
    [
        # "first" puts a space before the text alone, "always" after each control token too.
        ("first", [[b"a", b"", b"b"], [b"a", b"", b" ", b"b"], [b"", b"b"]]),
        ("always", [[b"a", b"", b"", b"b"], [b"a", b"", b" ", b"b"], [b"", b"", b"b"]]),
    ],
)
def test_metaspace_puts_a_space_where_there_is_none(tmp_path, scheme, contents):
    tokenizer = Tokenizer(
        models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("a", -1.0), ("b", -1.0), ("▁a", -1.0)], 0)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    tokenizer.add_special_tokens(["</s>"])
    side = load(tmp_path, tokenizer)
    encoded = side.encode(["a</s>b", "a</s> b", "</s>b"], parse_control=True)
    found = [side.contents(encoded)[slice(*encoded.offsets_B[i : i + 2])] for i in range(3)]
    assert found == contents


def test_turn_markers_are_control_whatever_the_tokenizer_declares(tokenizer):
    deepseek = tokenizer("deepseek")
    user, assistant = (deepseek.id_of_role[role] for role in (Role.USER, Role.ASSISTANT))
    assert (user, assistant) == (128803, 128804)
    assert deepseek.token_bytes[user] == b""
    # What a model itself writes stays text, with the same bytes as for a family without tokens.
    think = deepseek.encode(["<think>"])
    assert ids_of(think) == [128821]
    assert text_bytes(deepseek, think) == b"<think>"
    call = "<｜tool▁calls▁begin｜>"
    assert text_bytes(deepseek, deepseek.encode([call])) == call.encode()
    qwen = tokenizer("qwen3")
    assert [len(qwen.encode([tag])[0]) for tag in ("<think>", "<tool_call>", "</think>")] == [1] * 3
    assert qwen.id_of_role[Role.FIM_PREFIX] == 151659
    assert text_bytes(qwen, qwen.encode(["<|fim_prefix|>"])) == b"<|fim_prefix|>"


def test_a_declaration_that_was_missing_counts_in_the_fingerprint(tmp_path):
    plain, declared = byte_level(), byte_level()
    plain.add_tokens([AddedToken("<|im_start|>", special=False)])
    declared.add_tokens([AddedToken("<|im_start|>", special=True)])
    one, two = load(tmp_path / "one", plain), load(tmp_path / "two", declared)
    assert one.roles == two.roles == {256: Role.TURN_START}
    assert one.token_bytes == two.token_bytes
    assert ids_of(one.encode(["<|im_start|>"])) == ids_of(two.encode(["<|im_start|>"]))
    assert one.fingerprint != two.fingerprint  # the files differ


class TestPiecesOfTheModel:
    """Control tokens that a model has among its pieces, so that it makes them by itself."""

    @pytest.mark.parametrize("byte_fallback", [True, False])
    def test_unigram_spells_them_out(self, tmp_path, byte_fallback):
        tokenizer = unigram(byte_fallback=byte_fallback)
        side = load(tmp_path, tokenizer, eos_token="</s>")
        tokenizer.encode_special_tokens = True
        text = "the fox</s> ran"
        assert side.eos_id in tokenizer.encode(text).ids  # or this test would show nothing
        encoded = side.encode([text, "the fox", text])
        for index in (0, 2):
            assert text_bytes(side, encoded, index) == text.encode()
            assert not set(encoded[index].tolist()) & side.roles.keys()
        assert ids_of(encoded, 1) == tokenizer.encode("the fox").ids
        assert side.bytes_of(side.pieces([b"fox</s>"])[0]) == b"fox</s>"
        assert side.eos_id in ids_of(side.encode([text], parse_control=True))

    def test_unigram_makes_unknown_only_what_it_cannot_spell(self, tmp_path):
        side = load(tmp_path, unigram(byte_fallback=False))
        encoded = side.encode(["x <unk> \u65e5 x"])
        shown = [side.display(id) for id in ids_of(encoded)]
        unknown = shown.count("<unk>")  # k, which no text for training had, and the ideograph
        assert (unknown, text_bytes(side, encoded)) == (2, b"x <un>  x")

    def test_unigram_does_not_take_the_name_of_a_byte_for_the_byte(self, tmp_path):
        tokenizer = unigram()
        side = load(tmp_path, tokenizer)
        text = "A<0x0A>x\n"
        tokenizer.encode_special_tokens = True
        assert side.bytes_of(tokenizer.encode(text).ids) != b" " + text.encode()
        assert text_bytes(side, side.encode([text])) == text.encode()
        assert side.bytes_of(side.pieces([b"<0x0A>"])[0]) == b"<0x0A>"

    def test_bpe_that_takes_whole_words_from_its_vocabulary(self, tmp_path):
        tokenizer = byte_level(extra=["<s>"])
        parsed = json.loads(tokenizer.to_str())
        parsed["model"]["ignore_merges"] = True
        parsed["pre_tokenizer"]["use_regex"] = False
        tokenizer = Tokenizer.from_str(json.dumps(parsed))
        tokenizer.add_special_tokens(["<s>"])
        side = load(tmp_path, tokenizer)
        tokenizer.encode_special_tokens = True
        assert tokenizer.encode("<s>").ids == [256]
        assert ids_of(side.encode(["<s>"])) == list(b"<s>")

    def test_bpe_whose_merges_make_them(self, tmp_path):
        tokenizer = byte_level(extra=["<s"])
        parsed = json.loads(tokenizer.to_str())
        parsed["model"]["vocab"]["<s>"] = 257
        parsed["model"]["merges"].append(["<s", ">"])
        parsed["pre_tokenizer"]["use_regex"] = False
        tokenizer = Tokenizer.from_str(json.dumps(parsed))
        tokenizer.add_special_tokens(["<s>"])
        side = load(tmp_path, tokenizer)
        tokenizer.encode_special_tokens = True
        assert tokenizer.encode("<s>").ids == [257]
        assert ids_of(side.encode(["<s>"])) == [256, ord(">")]
        assert side.pieces([b"<s>"]) == [[256, ord(">")]]

    def test_wordpiece_that_cuts_at_white_space_alone(self, tmp_path):
        tokenizer = wordpiece()
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.normalizer = None
        side = load(tmp_path, tokenizer)
        tokenizer.encode_special_tokens = True
        assert 3 in tokenizer.encode("a [SEP] a", add_special_tokens=False).ids
        ids = ids_of(side.encode(["a [SEP] a"]))
        assert 3 not in ids
        assert [side.display(id) for id in ids] == [" a", "[UNK]", " a"]


def test_special_pieces_keep_their_ids_when_a_text_is_cut_again(tmp_path):
    """The second instance must number tokens as the first does, added ones included."""
    tokenizer = unigram()
    tokenizer.add_special_tokens(["<extra_0>"])
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    side = load(tmp_path, tokenizer)
    encoded = side.encode(["x</s><tool>x"])
    assert text_bytes(side, encoded) == b"x</s><tool>x"
    assert tokenizer.token_to_id("<tool>") in ids_of(encoded)
    assert isinstance(side, ByteTokenizer)
