"""Surprises of real tokenizers, each shown on the one that has it."""

import unicodedata

import pytest

from tests.text.small_tokenizers import ids_of, text_bytes


def is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_llama3_has_tokens_that_are_not_utf8(tokenizer):
    llama = tokenizer("llama3")
    broken = [id for id, content in enumerate(llama.token_bytes) if not is_utf8(content)]
    assert len(broken) == 1352
    # A decoder that goes by strings makes U+FFFD of all of them; the bytes tell them apart.
    contents = {llama.token_bytes[id] for id in broken}
    assert len(contents) == 1352
    assert all("\ufffd" in llama._engines.tokenizer.decode([id]) for id in broken)
    for id, ids in zip(broken, llama.pieces([llama.token_bytes[id] for id in broken]), strict=True):
        assert llama.bytes_of(ids) == llama.token_bytes[id]


def test_mistral_has_two_tokens_for_one_byte_string(tokenizer):
    mistral = tokenizer("mistral-v3")
    by_bytes: dict[bytes, list[int]] = {}
    for id, content in enumerate(mistral.token_bytes):
        if content:
            by_bytes.setdefault(content, []).append(id)
    doubled = {content: ids for content, ids in by_bytes.items() if len(ids) > 1}
    assert len(doubled) == 125
    assert doubled[b"A"] == [mistral._engines.tokenizer.token_to_id(p) for p in ("<0x41>", "A")]
    for content in doubled:
        if content.isascii():
            # What a text makes of it; nothing merges with the newline before.
            emitted = mistral.encode([f"\n{content.decode()}"]).ids_N[-1]
            assert mistral.id_of_bytes[content] == emitted
    # The newline has the byte token alone here; Gemma has both.
    assert mistral.id_of_bytes[b"\n"] == mistral._engines.tokenizer.token_to_id("<0x0A>")


def test_qwen_has_tokens_that_never_encode_to_themselves(tokenizer):
    qwen = tokenizer("qwen3")
    changed = {
        id: content.decode()
        for id, content in enumerate(qwen.token_bytes)
        if is_utf8(content) and not unicodedata.is_normalized("NFC", content.decode())
    }
    assert len(changed) > 0
    for id, text in changed.items():
        encoded = qwen.encode([text])
        assert ids_of(encoded) != [id]
        assert text_bytes(qwen, encoded) == unicodedata.normalize("NFC", text).encode()
        # Spelling bytes goes past the normaliser.
        assert qwen.pieces([text.encode()]) == [[id]]


def test_qwen_normalises_and_nothing_else(tokenizer):
    qwen = tokenizer("qwen3")
    for text in ("cafe\u0301 \u212b 201", "plain 201\r\n"):
        normal = unicodedata.normalize("NFC", text)
        assert text_bytes(qwen, qwen.encode([text])) == normal.encode()


def test_smollm_lacks_some_bytes_and_drops_them(tokenizer):
    smollm = tokenizer("smollm2-135m")
    single = {content for content in smollm.token_bytes if len(content) == 1}
    lacking = [bytes([byte]) for byte in range(256) if bytes([byte]) not in single]
    assert len(lacking) == 21
    controls = [content for content in lacking if content < b"\x80"]
    assert len(controls) == 6
    for content in controls:
        text = f"a{content.decode()}b 201"
        assert text_bytes(smollm, smollm.encode([text])) == b"ab 201"
        assert smollm.pieces([content, b"a" + content]) == [[], []]


def test_mistral_puts_a_space_before_a_text(tokenizer):
    mistral = tokenizer("mistral-v3")
    texts = ["the", " the", "  the"]
    encoded = mistral.encode(texts)
    assert [mistral.bytes_of(encoded[i]).decode() for i in range(3)] == [" " + t for t in texts]
    assert [text_bytes(mistral, encoded, i).decode() for i in range(3)] == texts
    # So a token alone is not what its text encodes to; `pieces` spells it without the space.
    bare, spaced = mistral.id_of_bytes[b"the"], mistral.id_of_bytes[b" the"]
    assert ids_of(encoded) == [spaced]
    assert mistral.pieces([b"the", b" the"]) == [[bare], [spaced]]


@pytest.mark.parametrize("name", ["mistral-v3", "smollm2-135m"])
def test_offsets_of_the_library_are_characters_and_ours_are_bytes(tokenizer, name):
    side = tokenizer(name)
    emoji = "\U0001fae8"  # too new for a token of its own
    text = "é" + emoji
    encoded = side.encode([text])
    characters = side._engines.tokenizer.encode(text, add_special_tokens=False).offsets
    contents = side.contents(encoded)
    of_emoji = [at for at, content in enumerate(contents) if not is_utf8(content)]
    assert b"".join(contents[at] for at in of_emoji) == emoji.encode()
    assert len(of_emoji) >= 2
    assert {characters[at] for at in of_emoji} == {(1, 2)}  # all claim the one character
    ends = [side.byte_ends(encoded)[at] for at in of_emoji]
    assert len(set(ends)) == len(ends)
    assert ends[-1] == len(text.encode()) == 6


def test_four_byte_tokens_of_one_emoji(tokenizer):
    mistral = tokenizer("mistral-v3")
    encoded = mistral.encode(["x\U0001fae8"])
    assert mistral.contents(encoded)[-4:] == [b"\xf0", b"\x9f", b"\xab", b"\xa8"]
    assert mistral.byte_ends(encoded).tolist()[-4:] == [2, 3, 4, 5]


@pytest.mark.parametrize("name", ["llama3", "llama4", "qwen3", "tekken", "deepseek"])
def test_byte_level_vocabularies_have_every_byte(tokenizer, name):
    single = {content for content in tokenizer(name).token_bytes if len(content) == 1}
    assert len(single) == 256


def test_o200k_cuts_numbers_and_words_as_gpt_oss_does(tokenizer):
    side = tokenizer("o200k")
    shown = [
        [side.display(id) for id in ids_of(side.encode([text]))]
        for text in ("201", " 2024", "Hundreds")
    ]
    assert shown == [["201"], [" ", "202", "4"], ["Hund", "reds"]]
    # Published for the o200k_harmony encoding, in the tests of Microsoft.ML.Tokenizers.
    harmony = "<|startoftext|><|start|><|message|>Hello World<|end|><|endoftext|>"
    assert ids_of(side.encode([harmony], parse_control=True)) == [
        *(199998, 200006, 200008, 13225, 5922, 200007, 199999)
    ]
