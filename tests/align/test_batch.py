"""Texts whose two sides differ: everything but the differences aligns."""

import random
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.align.sides import Vocabulary
from tests.align.test_byte_path import assert_tokens_in_one_place
from tests.reference.alignment import byte_chunks
from xtoken_jax.align import align, validate

PROSE = (
    "In 2024 the town of Überlingen counted 3,141 boats; by 2025 it was 2,718. "
    "Nobody knew why. The harbour master, asked about it, said that a boat is a hole in the "
    "water into which one pours money, and that 95% of the holes had been filled.\n\n"
)


def aligned(student, teacher, student_texts, teacher_texts):
    """An alignment of texts that may differ, checked to be a valid one."""
    sides = student.encode(student_texts), teacher.encode(teacher_texts)
    alignment = align(*sides, student, teacher)
    validate(alignment, *sides, student, teacher)
    for index in range(len(student_texts)):
        assert_tokens_in_one_place(alignment, index)
    return alignment, *sides


def gap_bytes(alignment, encoded, tokenizer, side):
    contents = tokenizer.contents(encoded)
    return [
        b"".join(contents[encoded.offsets_B[i] + token] for token in alignment.gaps(i)[side])
        for i in range(len(encoded))
    ]


def changed(text, share, seed):
    """The text with some of its characters replaced, doubled or dropped."""
    draw = random.Random(seed)
    out, count = [], 0
    for character in text:
        if draw.random() < share:
            count += 1
            character = draw.choice(["", "\u2603", character * 2, "q"])
        out.append(character)
    return "".join(out), count


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_changed_characters_cost_only_their_surroundings(tokenizer, share):
    student, teacher = tokenizer("llama3"), tokenizer("qwen3")
    text = " ".join(PROSE + str(i) for i in range(60))
    other, count = changed(text, share, seed=1)
    alignment, left, _ = aligned(student, teacher, [text], [other])
    assert alignment.by_dp_B.tolist() == [True]
    (lost,) = gap_bytes(alignment, left, student, 0)
    # A change spoils at most the token that it is in and its neighbours: some 15 bytes.
    assert 0 < len(lost) < 15 * count


def test_a_change_inside_a_word_spoils_the_word(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("smollm2-135m")
    text = PROSE * 3
    cut = text.index("harbour", len(PROSE))
    other = text[:cut] + "harboxr" + text[cut + 7 :]
    alignment, *encoded = aligned(student, teacher, [text], [other])
    assert gap_bytes(alignment, encoded[0], student, 0) == [b" harbour"]
    assert gap_bytes(alignment, encoded[1], teacher, 1) == [b" harboxr"]


def test_a_normaliser_on_one_side(tokenizer):
    """Qwen composes characters, Llama does not."""
    student, teacher = tokenizer("llama3"), tokenizer("qwen3")
    text = unicodedata.normalize("NFD", PROSE * 4)
    alignment, left, _ = aligned(student, teacher, [text, PROSE], [text, PROSE])
    assert alignment.by_dp_B.tolist() == [True, False]
    lost, nothing = gap_bytes(alignment, left, student, 0)
    assert 4 * len("U\u0308".encode()) <= len(lost) <= 4 * len(" U\u0308berlingen".encode())
    assert nothing == b""


def test_a_dropped_character_is_one_gap(tokenizer):
    """SmolLM2 has no token for some control characters and drops them."""
    student, teacher = tokenizer("llama3"), tokenizer("smollm2-135m")
    text = "a\x04b and more than\x13 that"
    alignment, left, right = aligned(student, teacher, [text], [text])
    assert gap_bytes(alignment, left, student, 0) == [b"\x04\x13"]
    assert gap_bytes(alignment, right, teacher, 1) == [b""]


def test_truncation_at_different_places(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("qwen3")
    texts = [PROSE, "abc " * 30, ""]
    alignment, left, _ = aligned(student, teacher, texts, [PROSE[:100], "abc " * 30, "not there"])
    assert alignment.by_dp_B.tolist() == [True, False, True]
    (lost, none, nothing) = gap_bytes(alignment, left, student, 0)
    assert PROSE.encode().endswith(lost)
    assert len(lost) < len(PROSE) - 90
    assert (none, nothing) == (b"", b"")


def test_differing_texts_do_not_touch_their_neighbours(tokenizer):
    student, teacher = tokenizer("mistral-v3"), tokenizer("llama3")
    texts = ["same", PROSE, "", "the same", "", PROSE, "one 201 two"]
    others = ["same", PROSE.replace("boat", "bot"), "x", "the same", "", PROSE, "one 201. two"]
    together, *_ = aligned(student, teacher, texts, others)
    for index, pair in enumerate(zip(texts, others, strict=True)):
        alone, *_ = aligned(student, teacher, *[[text] for text in pair])
        np.testing.assert_array_equal(together[index], alone[0])
        assert together.by_dp_B[index] == alone.by_dp_B[0] == (pair[0] != pair[1])


def test_repetitive_texts_align_around_a_change(tokenizer):
    """Where no anchor is unique, equal beginnings and ends still align."""
    student, teacher = tokenizer("llama3"), tokenizer("qwen3")
    text = "0 1 0 1 0 1\n" * 300
    other = text[:1800] + "2" + text[1801:]
    alignment, left, _ = aligned(student, teacher, [text], [other])
    (lost,) = gap_bytes(alignment, left, student, 0)
    assert len(lost) <= 8


def test_a_moved_paragraph_aligns_in_one_of_its_places(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("qwen3")
    parts = [f"{i}. {PROSE.replace('boat', f'boat{i}')}" for i in range(6)]
    alignment, left, _ = aligned(
        student, teacher, ["".join(parts)], ["".join([*parts[3:], *parts[:3]])]
    )
    (lost,) = gap_bytes(alignment, left, student, 0)
    assert len(lost) <= 1.05 * len("".join(parts).encode()) / 2


TOKENS = st.lists(
    st.sampled_from([b"the ", b"th", b"e ", b"cat", b"ca", b"t", b"a", b"abcdefghijklmnopq"]),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=4), st.randoms())
def test_any_two_streams_of_tokens_align_validly(texts, draw):
    """Random streams, half of them another cut of the same bytes with a few tokens changed."""
    texts = [(left, recut(left, draw) if draw.random() < 0.5 else right) for left, right in texts]
    vocabulary = Vocabulary()
    sides = [vocabulary.encoded([text[i] for text in texts]) for i in (0, 1)]
    vocabulary.ids.setdefault(b"unused", len(vocabulary.ids))
    student, teacher = vocabulary.tokenizer(), vocabulary.tokenizer()
    alignment = align(*sides, student, teacher)
    validate(alignment, *sides, student, teacher)
    for index, (left, right) in enumerate(texts):
        assert_tokens_in_one_place(alignment, index)
        equal = b"".join(left) == b"".join(right)
        assert alignment.by_dp_B[index] == (not equal)
        if equal:
            assert [tuple(c) for c in alignment[index].tolist()] == byte_chunks(left, right)


def recut(tokens, draw):
    content = b"".join(tokens)
    cuts = sorted(draw.sample(range(1, max(2, len(content))), k=min(5, max(0, len(content) - 1))))
    parts = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    parts = [part for part in parts if part]
    if parts and draw.random() < 0.5:
        parts[draw.randrange(len(parts))] = b"zz"
    return parts


LLAMA_CHAT = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{user}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{assistant}<|eot_id|>"
)
CHATML = (
    "<|im_start|>system\n{system}<|im_end|>\n"
    "<|im_start|>user\n{user}<|im_end|>\n"
    "<|im_start|>assistant\n{assistant}<|im_end|>\n"
)
MESSAGES = {
    "system": "Answer briefly.",
    "user": "What is 12 times 17, and why do people ask?",
    "assistant": "It is 204. They ask because 12 × 17 is awkward.",
}


# SmolLM2 declares <|im_start|> its bos as well, so that the first one pairs with Llama's bos.
@pytest.mark.parametrize(("teacher_name", "turn_starts"), [("qwen3", 3), ("smollm2-135m", 2)])
def test_chats_under_different_templates_align_on_their_messages(
    tokenizer, teacher_name, turn_starts
):
    student, teacher = tokenizer("llama3"), tokenizer(teacher_name)
    left = student.encode([LLAMA_CHAT.format(**MESSAGES)], parse_control=True)
    right = teacher.encode([CHATML.format(**MESSAGES)], parse_control=True)
    alignment = align(left, right, student, teacher)
    validate(alignment, left, right, student, teacher)
    contents = student.contents(left)
    in_chunks = {t for a, b, *_ in alignment[0].tolist() for t in range(a, b)}
    spelt = b"".join(contents[t] for t in sorted(in_chunks))
    for message in MESSAGES.values():
        # All of it, but for what a token shares with the template's line break.
        assert message[1:-1].encode() in spelt
    turns = [t for t in in_chunks if student.roles.get(int(left.ids_N[t]), 0)]
    names = Counter(student.display(int(left.ids_N[t])) for t in turns)
    assert (names["<|start_header_id|>"], names["<|eot_id|>"]) == (turn_starts, 3)
