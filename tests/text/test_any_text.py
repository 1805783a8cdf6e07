"""Any text, any tokenizer: the tokens spell what decoding gives, or the difference is named."""

import unicodedata

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.text.small_tokenizers import load, text_bytes, unigram, wordpiece

LOSSLESS = ["llama3", "llama4", "tekken", "mistral-v3", "deepseek"]
ASSETS = [*LOSSLESS, "qwen3", "smollm2-135m"]
FRAGMENTS = (
    *("\x00", "\x04", "\x1b", "\x7f", "\x85", "\r\n", "\n\n", "\t", "\u2028", "\ufeff"),  # controls
    *("e\u0301", "\u0344", "\u1100\u1161\u11a8", "\u212b", "q\u0323\u0307"),  # combining marks
    *("مرحبا", "שָׁלוֹם", "\u202eabc\u202c", "\u200f"),  # right to left
    *("👩\u200d🚀", "🇩🇪🇫🇷", "👍🏽", "❤\ufe0f", "🏴\U000e0067\U000e007f", "\U0001fae8"),  # emoji
    *("0123456789", "２０１", "٢٠١", "3.14", "1,000,000"),  # numbers
    *("<s>", "</s>", "<|eot_id|>", "<｜User｜>", "[INST]", "<0x0A>", "<think>"),  # control's names
    *(" ", "   ", "the ", "Hello", "naïve", "日本語", "ภาษา", "हिन्दी", "ﬁ", "\U0010ffff", "##s"),
)
ANY_TEXT = st.text(max_size=60) | st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join)
GIVEN = (" " * 3000, "x" + "\n " * 700, "0123456789" * 120, "é" * 900, "👩\u200d🚀" * 100, "▁a▁")


def on_any_text(check):
    """Run a check on drawn texts and on given ones."""
    drawn = settings(
        max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )(given(text=ANY_TEXT)(check))
    for text in (*GIVEN, "".join(FRAGMENTS), ""):
        drawn = example(text=text)(drawn)
    drawn()


def spelled(side, text: str) -> bytes:
    """The bytes of a text's tokens, once they are known to be what the library decodes."""
    encoded = side.encode([text])
    ids = [id for id in encoded[0].tolist() if id not in side.roles]  # no `<unk>`
    decoded = side._engines.tokenizer.decode(ids, skip_special_tokens=True)
    content = side.bytes_of(encoded[0])
    # SentencePiece's decoder takes one space off, whoever put it there.
    shown = content.decode(errors="replace")
    assert decoded in (shown, shown.removeprefix(" ")), repr(text)
    assert side.byte_ends(encoded)[-1:].tolist() in ([], [len(text_bytes(side, encoded))])
    return text_bytes(side, encoded)


@pytest.mark.parametrize("name", LOSSLESS)
def test_tokens_spell_exactly_the_text(tokenizer, name):
    side = tokenizer(name)
    space = " " if name == "mistral-v3" else "▁"  # SentencePiece writes a space so

    def check(text):
        assert spelled(side, text) == text.replace("▁", space).encode()

    on_any_text(check)


def test_qwen_spells_the_normal_form(tokenizer):
    side = tokenizer("qwen3")

    def check(text):
        assert spelled(side, text) == unicodedata.normalize("NFC", text).encode()

    on_any_text(check)


def test_smollm_drops_exactly_the_bytes_that_it_lacks(tokenizer):
    side = tokenizer("smollm2-135m")
    kept = {content[0] for content in side.token_bytes if len(content) == 1}

    def check(text):
        assert spelled(side, text) == bytes(byte for byte in text.encode() if byte in kept)

    on_any_text(check)


def test_unigram_with_byte_fallback_spells_exactly_the_text(tmp_path):
    side = load(tmp_path, unigram())

    def check(text):
        assert spelled(side, text) == text.replace("▁", " ").encode()

    on_any_text(check)


def test_unigram_without_byte_fallback_leaves_out_what_it_lacks(tmp_path):
    side = load(tmp_path, unigram(byte_fallback=False))
    kept = {content.decode() for content in side.token_bytes if len(content.decode()) == 1}

    def check(text):
        text = text.replace("▁", " ")
        found = "".join(character for character in text if character in kept)
        assert spelled(side, text).decode() == found

    on_any_text(check)


def test_wordpiece_spells_the_words_that_it_knows(tmp_path):
    side = load(tmp_path, wordpiece())
    library = side._engines.tokenizer

    def check(text):
        words = library.pre_tokenizer.pre_tokenize_str(library.normalizer.normalize_str(text))
        known = [
            word
            for word, _ in words
            if library.token_to_id("[UNK]")
            not in [token.id for token in library.model.tokenize(word)]
        ]
        encoded = side.encode([text])
        expected = "".join(f" {word}" for word in known).encode()
        assert side.bytes_of(encoded[0]) == expected
        assert library.decode(encoded[0].tolist()).encode() == expected.removeprefix(b" ")

    on_any_text(check)


@pytest.mark.parametrize("name", ASSETS)
def test_many_texts_at_once_are_as_each_alone(tokenizer, name):
    side = tokenizer(name)
    texts = [*FRAGMENTS, *GIVEN]
    together = side.encode(texts)
    for index, text in enumerate(texts):
        assert together[index].tolist() == side.encode([text])[0].tolist(), repr(text)
