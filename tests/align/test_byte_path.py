"""The byte path against its definition, and what it does at the edges."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.reference.alignment import byte_chunks
from xtoken_jax.align import align, validate
from xtoken_jax.text import Encoded, Role

PAIRS = [
    ("llama3", "smollm2-135m"),
    ("llama3", "qwen3"),
    ("mistral-v3", "llama3"),
    ("qwen3", "mistral-v3"),
]
TEXTS = (
    "201 apples",
    " In 2024, 3,141 Hundreds of naïve cafés\r\n\tsold $1.50 👩‍👩‍👧 日本語 العربية  ",
    "",
    "x",
    "<|eot_id|> is ordinary text, and so is </s>\x00.",
    "\n" * 40 + " " * 300,
    "12345678901",
)
# Text of letters, digits, spaces and what is rare, as people and programs write it.
ANY_TEXT = st.text(max_size=60) | st.text(alphabet="01289aeé ,.\n日👩‍", max_size=60)


def contents(tokenizer, encoded, index):
    pieces = [tokenizer.token_bytes[id] for id in encoded[index]]
    for prefixed in encoded.prefixed_N - encoded.offsets_B[index]:
        if 0 <= prefixed < len(pieces):
            pieces[prefixed] = pieces[prefixed][1:]
    return pieces


def batch(ids):
    return Encoded(np.array(ids, np.int32), np.array([0, len(ids)]), np.zeros(0, np.int64))


def aligned(student, teacher, texts, **options):
    sides = student.encode(texts, **options), teacher.encode(texts, **options)
    alignment = align(*sides, student, teacher)
    validate(alignment, *sides, student, teacher)
    for index in range(len(texts)):
        assert_tokens_in_one_place(alignment, index)
    return alignment, *sides


def assert_tokens_in_one_place(alignment, index):
    chunks = alignment[index]
    lengths = alignment.student_lengths_B[index], alignment.teacher_lengths_B[index]
    for spans, gaps, length in zip(
        (chunks[:, :2], chunks[:, 2:]), alignment.gaps(index), lengths, strict=True
    ):
        in_chunks = [i for first, end in spans for i in range(first, end)]
        assert sorted([*in_chunks, *gaps]) == list(range(length))


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_equals_the_definition_on_real_tokenizers(tokenizer, pair):
    student, teacher = map(tokenizer, pair)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(ANY_TEXT, min_size=1, max_size=3))
    def check(texts):
        alignment, student_encoded, teacher_encoded = aligned(student, teacher, texts)
        for index in range(len(texts)):
            sides = (
                contents(student, student_encoded, index),
                contents(teacher, teacher_encoded, index),
            )
            if alignment.by_dp_B[index]:
                assert b"".join(sides[0]) != b"".join(sides[1])
                continue
            expected = byte_chunks(*sides)
            assert [tuple(chunk) for chunk in alignment[index].tolist()] == expected, texts[index]

    check()


@pytest.mark.parametrize("with_ends", [False, True])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_texts_align_whole(tokenizer, pair, with_ends):
    student, teacher = map(tokenizer, pair)
    alignment, *encoded = aligned(student, teacher, list(TEXTS), bos=with_ends, eos=with_ends)
    for index, text in enumerate(TEXTS):
        same = [
            b"".join(contents(side, e, index)) == text.encode()
            for side, e in zip((student, teacher), encoded, strict=True)
        ]
        if all(same):  # SmolLM2 drops some characters, Qwen normalises others
            gaps = alignment.gaps(index)
            empty = [
                [content for i, content in enumerate(contents(side, e, index)) if i in gap]
                for side, e, gap in zip((student, teacher), encoded, gaps, strict=True)
            ]
            assert b"".join(empty[0] + empty[1]) == b"", text


def test_control_tokens_pair_by_role_and_a_bos_on_one_side_is_one_gap(tokenizer):
    llama, smollm, tekken = map(tokenizer, ("llama3", "smollm2-135m", "tekken"))
    text = "Hello there, " * 50
    both, *encoded = aligned(llama, tekken, [text], bos=True, eos=True)
    assert both[0][0].tolist() == [0, 1, 0, 1]
    lengths = [len(side[0]) for side in encoded]
    assert both[0][-1].tolist() == [lengths[0] - 1, lengths[0], lengths[1] - 1, lengths[1]]
    one, *_ = aligned(llama, smollm, [text], bos=True, eos=True)
    assert [gap.tolist() for gap in one.gaps(0)] == [[0], []]


def test_a_truncated_end_is_a_gap_and_the_rest_stays(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("smollm2-135m")
    texts = ["one two three", "It cost 201", "four five"]
    whole, student_encoded, teacher_encoded = aligned(student, teacher, texts)
    # Cut the teacher's last token of each text: of `201` it then has `2` and `0`.
    keep = np.ones(len(teacher_encoded.ids_N), bool)
    keep[teacher_encoded.offsets_B[1:] - 1] = False
    cut = Encoded(
        teacher_encoded.ids_N[keep],
        teacher_encoded.offsets_B - np.arange(len(texts) + 1),
        teacher_encoded.prefixed_N,
    )
    alignment = align(student_encoded, cut, student, teacher)
    validate(alignment, student_encoded, cut, student, teacher)
    for index in range(len(texts)):
        np.testing.assert_array_equal(alignment[index], whole[index][:-1])
    assert [len(gap) for gap in alignment.gaps(1)] == [1, 2]


def test_other_bytes_of_the_same_length_spoil_only_their_tokens(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("qwen3")
    left = student.encode(["the red fox ran home"])
    right = teacher.encode(["the rad fox ran home"])
    alignment = align(left, right, student, teacher)
    validate(alignment, left, right, student, teacher)
    gaps = [
        b"".join(tokenizer.token_bytes[encoded[0][i]] for i in gap)
        for tokenizer, encoded, gap in zip(
            (student, teacher), (left, right), alignment.gaps(0), strict=True
        )
    ]
    assert gaps == [b" red", b" rad"]


def test_a_chunk_that_a_control_token_splits_is_a_gap(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("llama3")
    whole = student.id_of_bytes[b" apples"]
    halves = [student.id_of_bytes[b" app"], student.id_of_bytes[b"les"]]
    left, right = batch([5, whole, 6]), batch([5, halves[0], student.eos_id, halves[1], 6])
    alignment = align(left, right, student, teacher)
    validate(alignment, left, right, student, teacher)
    assert alignment[0].tolist() == [[0, 1, 0, 1], [2, 3, 4, 5]]


def test_control_tokens_in_crossed_order_stay_monotone(tokenizer):
    llama = tokenizer("llama3")
    bos, eos = llama.bos_id, llama.eos_id
    left, right = batch([bos, eos, 5]), batch([eos, bos, 5])
    alignment = align(left, right, llama, llama)
    validate(alignment, left, right, llama, llama)
    assert len(alignment[0]) == 2  # one of the pair, and the token


def test_control_tokens_between_contents_pair_at_their_byte(tokenizer):
    llama, smollm = tokenizer("llama3"), tokenizer("smollm2-135m")
    turn, end = llama.id_of_role[Role.TURN_START], llama.id_of_role[Role.TURN_END]
    start, stop = smollm.id_of_role[Role.TURN_START], smollm.id_of_role[Role.TURN_END]
    hi, there = (side.id_of_bytes[b"hi"] for side in (llama, smollm))
    left = batch([llama.bos_id, turn, hi, end, end, turn, hi])
    right = batch([start, there, stop, start, there, stop])
    alignment = align(left, right, llama, smollm)
    validate(alignment, left, right, llama, smollm)
    # SmolLM2's <|im_start|> is its declared bos too, so it pairs with the first that fits.
    expected = [(0, 0), (2, 1), (3, 2), (5, 3), (6, 4)]
    assert alignment[0].tolist() == [[a, a + 1, c, c + 1] for a, c in expected]
    assert [gap.tolist() for gap in alignment.gaps(0)] == [[1, 4], [5]]


def test_each_text_of_a_batch_aligns_as_it_does_alone(tokenizer):
    student, teacher = tokenizer("mistral-v3"), tokenizer("llama3")
    texts = ["", *TEXTS, "x", ""]
    together, *_ = aligned(student, teacher, texts, bos=True, eos=True)
    for index, text in enumerate(texts):
        alone, *_ = aligned(student, teacher, [text], bos=True, eos=True)
        np.testing.assert_array_equal(together[index], alone[0])
    assert len(aligned(student, teacher, [])[0]) == 0


def test_a_long_text_keeps_its_positions(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("smollm2-135m")
    text = "It cost 201. " * 20_000  # longer than the table of low powers
    alignment, *_ = aligned(student, teacher, [text])
    assert [len(gap) for gap in alignment.gaps(0)] == [0, 0]
    assert len(alignment[0]) == alignment.student_lengths_B[0]


def test_different_numbers_of_texts_and_ids_out_of_range_are_errors(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("smollm2-135m")
    one, two = student.encode(["a"]), teacher.encode(["a", "b"])
    with pytest.raises(ValueError, match="same texts, got 1 and 2"):
        align(one, two, student, teacher)
    with pytest.raises(ValueError, match=r"`teacher` ids must be in \[0, 49152\), got 128255"):
        align(one, batch([128255]), student, teacher)
    with pytest.raises(ValueError, match=r"`student` ids must be in .* got -1 to 5"):
        align(batch([5, -1]), teacher.encode(["a"]), student, teacher)
