import numpy as np
import pytest

from tests.tiny import sentences
from xtoken_jax.data import Document, Lengths, make_examples, try_examples
from xtoken_jax.errors import XTokenError


def documents(*texts):
    return [Document(text, f"record {i}") for i, text in enumerate(texts)]


def make(texts, tokenizers, student_length=64, teacher_length=64):
    student, teacher = tokenizers
    return make_examples(
        texts,
        student,
        {"one": teacher},
        student_length=student_length,
        teacher_lengths={"one": teacher_length},
    )


def spelled(tokenizer, ids):
    return b"".join(tokenizer.token_bytes[id] for id in ids)


class TestWholeDocuments:
    def test_ids_are_each_tokenizers_own(self, tokenizers):
        student, teacher = tokenizers
        (example,) = make(documents("201 apples"), tokenizers)
        student_bytes = [student.token_bytes[id] for id in example.student_ids]
        teacher_bytes = [teacher.token_bytes[id] for id in example.teachers["one"].ids]
        assert student_bytes == [b"", b"201", b" apples", b""]
        assert teacher_bytes == [b"2", b"0", b"1", b" apples", b""]
        assert example.student_ids[[0, -1]].tolist() == [student.bos_id, student.eos_id]
        assert example.teachers["one"].ids[-1] == teacher.eos_id
        assert example.record == "record 0"

    def test_chunks_pair_the_number_with_its_digits_and_eos_with_eos(self, tokenizers):
        (example,) = make(documents("201 apples"), tokenizers)
        assert example.teachers["one"].student_chunk.tolist() == [
            -1,
            0,
            1,
            2,
        ]  # bos has no counterpart
        assert example.teachers["one"].teacher_chunk.tolist() == [0, 0, 0, 1, 2]


class TestTruncation:
    @pytest.mark.parametrize(
        ("student_length", "teacher_length"), [(2, 64), (9, 64), (64, 9), (64, 3), (13, 11)]
    )
    def test_both_sides_keep_the_same_text(self, tokenizers, student_length, teacher_length):
        student, teacher = tokenizers
        texts = [*sentences(20), "201201 and more"]
        examples = make(documents(*texts), tokenizers, student_length, teacher_length)
        for example in examples:
            text = texts[int(example.record.split()[1])].encode()
            kept = spelled(student, example.student_ids)
            assert kept == spelled(teacher, example.teachers["one"].ids)
            assert text.startswith(kept)
            assert kept
            assert len(example.student_ids) <= student_length
            assert len(example.teachers["one"].ids) <= teacher_length
            # Both end at the end of one chunk, and the next chunk would not have fitted.
            assert (
                example.teachers["one"].student_chunk[-1]
                == example.teachers["one"].teacher_chunk[-1]
                >= 0
            )

    def test_no_more_is_cut_than_must_be(self, tokenizers):
        text = "201 apples and 201 apples"
        whole = make(documents(text), tokenizers)[0]
        for length in range(3, len(whole.teachers["one"].ids)):
            (cut,) = make(documents(text), tokenizers, 64, length)
            last = whole.teachers["one"].teacher_chunk[: length + 1][
                -1
            ]  # the chunk that holds the next token
            fits = np.flatnonzero(whole.teachers["one"].teacher_chunk < last)
            if (
                whole.teachers["one"].teacher_chunk[length]
                != whole.teachers["one"].teacher_chunk[length - 1]
            ):
                assert len(cut.teachers["one"].ids) == length
            else:
                assert len(cut.teachers["one"].ids) == len(fits)

    def test_a_document_in_which_nothing_fits_is_a_problem(self, tokenizers):
        student, teacher = tokenizers
        lengths = Lengths(64, {"one": 2})
        made = try_examples(documents("201", "a 201"), student, {"one": teacher}, lengths)
        assert made[0].kind == "too long"
        assert made[0].message == (
            "record 0: its first chunk must fit in 64 student tokens and 2 tokens of one"
        )
        assert (made[1].record, made[1].is_cut) == ("record 1", True)


def completion(prompt, text):
    return [Document(f"{prompt}{text}", "record 0", len(prompt))]


class TestCompletions:
    def test_the_prompt_is_not_learnt_and_eos_is(self, tokenizers):
        student = tokenizers[0]
        (example,) = make(completion("201 apples and", " 20"), tokenizers)
        pieces = [student.token_bytes[id] for id in example.student_ids]
        assert pieces == [b"", b"201", b" apples", b" and", b" ", b"20", b""]
        assert example.loss_mask.tolist() == [False] * 4 + [True] * 3

    def test_a_token_that_reaches_over_the_end_of_the_prompt_is_learnt(self, tokenizers):
        (example,) = make(completion("201 apples ", "and"), tokenizers)
        assert example.loss_mask.tolist() == [False] * 3 + [True] * 2

    @pytest.mark.parametrize("lengths", [(8, 64), (64, 9), (7, 8)])
    def test_too_long_a_prompt_loses_its_beginning_on_both_sides(self, tokenizers, lengths):
        student, teacher = tokenizers
        prompt, text = "201 apples and 201 apples and 201 apples and", " 20"
        (example,) = make(completion(prompt, text), tokenizers, *lengths)
        side = example.teachers["one"]
        assert len(example.student_ids) <= lengths[0]
        assert len(side.ids) <= lengths[1]
        kept = spelled(student, example.student_ids)
        assert kept == spelled(teacher, side.ids)
        assert f"{prompt}{text}".encode().endswith(kept)
        assert kept.endswith(text.encode())
        assert example.student_ids[0] == student.bos_id
        assert example.student_ids[-1] == student.eos_id
        # The chunks count on from 0 without a hole, and still spell the same on both sides.
        assert np.unique(side.student_chunk).tolist() == list(
            range(-1, side.student_chunk.max() + 1)
        )
        for chunk in range(side.student_chunk.max() + 1):
            assert spelled(student, example.student_ids[side.student_chunk == chunk]) == spelled(
                teacher, side.ids[side.teacher_chunk == chunk]
            )

    def test_a_completion_that_does_not_fit_is_a_problem(self, tokenizers):
        with pytest.raises(XTokenError, match="what is to be learnt must fit in 3 student tokens"):
            make(completion("201", " apples and 201 apples"), tokenizers, 3, 64)


class TestSeveralTeachers:
    @pytest.mark.parametrize("lengths", [(64, 64, 64), (12, 64, 64), (64, 11, 64), (64, 64, 7)])
    def test_all_sides_keep_the_same_text(self, tokenizers, lengths):
        student, teacher = tokenizers
        student_length, *teacher_lengths = lengths
        texts = sentences(20)
        examples = make_examples(
            documents(*texts),
            student,
            {"digits": teacher, "self": student},
            student_length=student_length,
            teacher_lengths=dict(zip(("digits", "self"), teacher_lengths, strict=True)),
        )
        assert len(examples) == len(texts)
        for example in examples:
            sizes = [len(example.student_ids)]
            sizes += [len(example.teachers[name].ids) for name in ("digits", "self")]
            assert all(size <= length for size, length in zip(sizes, lengths, strict=True))
            kept = spelled(student, example.student_ids)
            assert kept == spelled(teacher, example.teachers["digits"].ids)
            assert kept == spelled(student, example.teachers["self"].ids)

    def test_each_has_its_own_chunks(self, tokenizers):
        student, teacher = tokenizers
        (example,) = make_examples(
            documents("201 apples"),
            student,
            {"digits": teacher, "self": student},
            student_length=64,
            teacher_lengths={"digits": 64, "self": 64},
        )
        assert example.teachers["digits"].student_chunk.tolist() == [-1, 0, 1, 2]
        assert example.teachers["self"].student_chunk.tolist() == [0, 1, 2, 3]
        assert example.teachers["self"].teacher_chunk.tolist() == [0, 1, 2, 3]

    def test_without_teachers_a_document_is_cut_at_the_length(self, tokenizers):
        text = documents("201 apples and 201 apples")
        options = {"teachers": {}, "teacher_lengths": {}}
        (example,) = make_examples(text, tokenizers[0], student_length=3, **options)
        assert [tokenizers[0].token_bytes[id] for id in example.student_ids[1:]] == [
            b"201",
            b" apples",
        ]
        assert example.teachers == {}

    def test_lengths_must_be_of_the_teachers(self, tokenizers):
        student, teacher = tokenizers
        with pytest.raises(ValueError, match=r"must be of \['one'\], got \['other'\]"):
            make_examples(
                documents("201"),
                student,
                {"one": teacher},
                student_length=8,
                teacher_lengths={"other": 8},
            )


class TestErrors:
    def test_no_documents(self, tokenizers):
        with pytest.raises(XTokenError, match="at least one document"):
            make([], tokenizers)

    def test_nothing_fits_anywhere(self, tokenizers):
        with pytest.raises(XTokenError, match="record 0: its first chunk must fit"):
            make(documents("201"), tokenizers, 64, 2)
