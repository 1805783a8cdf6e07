import numpy as np
import pytest

from tests.tiny import sentences
from xtoken_jax.data import Document, make_examples
from xtoken_jax.errors import XTokenError


def documents(*texts):
    return [Document(text, f"record {i}") for i, text in enumerate(texts)]


def spelled(tokenizer, ids):
    return b"".join(tokenizer.token_bytes[id] for id in ids)


class TestWholeDocuments:
    def test_ids_are_each_tokenizers_own(self, tokenizers):
        student, teacher = tokenizers
        (example,) = make_examples(
            documents("201 apples"), student, teacher, student_length=64, teacher_length=64
        )
        student_bytes = [student.token_bytes[id] for id in example.student_ids]
        teacher_bytes = [teacher.token_bytes[id] for id in example.teacher_ids]
        assert student_bytes == [b"", b"201", b" apples", b""]
        assert teacher_bytes == [b"2", b"0", b"1", b" apples", b""]
        assert example.student_ids[[0, -1]].tolist() == [student.bos_id, student.eos_id]
        assert example.teacher_ids[-1] == teacher.eos_id
        assert example.record == "record 0"

    def test_chunks_pair_the_number_with_its_digits_and_eos_with_eos(self, tokenizers):
        (example,) = make_examples(
            documents("201 apples"), *tokenizers, student_length=64, teacher_length=64
        )
        assert example.student_chunk.tolist() == [-1, 0, 1, 2]  # bos has no counterpart
        assert example.teacher_chunk.tolist() == [0, 0, 0, 1, 2]


class TestTruncation:
    @pytest.mark.parametrize(
        ("student_length", "teacher_length"), [(2, 64), (9, 64), (64, 9), (64, 2), (13, 11)]
    )
    def test_both_sides_keep_the_same_text(self, tokenizers, student_length, teacher_length):
        student, teacher = tokenizers
        texts = [*sentences(20), "201201 and more"]
        examples = make_examples(
            documents(*texts),
            student,
            teacher,
            student_length=student_length,
            teacher_length=teacher_length,
        )
        for example in examples:
            text = texts[int(example.record.split()[1])].encode()
            kept = spelled(student, example.student_ids)
            assert kept == spelled(teacher, example.teacher_ids)
            assert text.startswith(kept)
            assert kept
            assert len(example.student_ids) <= student_length
            assert len(example.teacher_ids) <= teacher_length
            # Both end at the end of one chunk, and the next chunk would not have fitted.
            assert example.student_chunk[-1] == example.teacher_chunk[-1] >= 0

    def test_no_more_is_cut_than_must_be(self, tokenizers):
        student, teacher = tokenizers
        text = "201 apples and 201 apples"
        whole = make_examples(
            documents(text), student, teacher, student_length=64, teacher_length=64
        )[0]
        for length in range(3, len(whole.teacher_ids)):
            (cut,) = make_examples(
                documents(text), student, teacher, student_length=64, teacher_length=length
            )
            last = whole.teacher_chunk[: length + 1][-1]  # the chunk that holds the next token
            fits = np.flatnonzero(whole.teacher_chunk < last)
            if whole.teacher_chunk[length] != whole.teacher_chunk[length - 1]:
                assert len(cut.teacher_ids) == length
            else:
                assert len(cut.teacher_ids) == len(fits)

    def test_a_document_in_which_nothing_fits_is_left_out(self, tokenizers):
        examples = make_examples(
            documents("201", "a 201"), *tokenizers, student_length=64, teacher_length=2
        )
        assert [example.record for example in examples] == ["record 1"]


class TestErrors:
    def test_no_documents(self, tokenizers):
        with pytest.raises(XTokenError, match="at least one document"):
            make_examples([], *tokenizers, student_length=8, teacher_length=8)

    def test_nothing_fits_anywhere(self, tokenizers):
        with pytest.raises(XTokenError, match="fits in 64 student tokens and 2 teacher tokens"):
            make_examples(documents("201"), *tokenizers, student_length=64, teacher_length=2)
