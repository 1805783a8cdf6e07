import json
from collections import Counter
from itertools import islice

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import sentences
from xtoken_jax.data import Document, batch_dataset, make_examples, padded_rows
from xtoken_jax.ops import Spans

NAME = "one"
LENGTHS = {"student_length": 64, "teacher_lengths": {NAME: 96}}


def examples_of(texts, tokenizers):
    documents = [Document(text, str(i)) for i, text in enumerate(texts)]
    student, teacher = tokenizers
    return make_examples(documents, student, {NAME: teacher}, **LENGTHS)


@pytest.fixture(scope="module")
def examples(tokenizers):
    return examples_of(sentences(60), tokenizers)


def batches_of(examples, *, seed=0, batch_size=4):
    return iter(batch_dataset(examples, batch_size=batch_size, seed=seed, **LENGTHS))


def slow_chunks(student_bytes, teacher_bytes):
    """Chunks `(a, b, c, d)` of one document, token by token; control tokens spell nothing."""
    chunks, a, c = [], 0, 0
    for b in range(1, len(student_bytes) + 1):
        for d in range(c + 1, len(teacher_bytes) + 1):
            spelled = b"".join(student_bytes[:b])
            if not student_bytes[b - 1] or not teacher_bytes[d - 1]:
                continue
            if spelled == b"".join(teacher_bytes[:d]):
                while not student_bytes[a]:
                    a += 1
                while not teacher_bytes[c]:
                    c += 1
                chunks.append((a, b, c, d))
                a, c = b, d
                break
    end = len(student_bytes), len(teacher_bytes)
    return [*chunks, (end[0] - 1, end[0], end[1] - 1, end[1])]  # eos with eos


def slow_row(texts, tokenizers):
    """What a row that holds these texts must be, written token by token."""
    student, teacher = tokenizers
    S, T = LENGTHS["student_length"], LENGTHS["teacher_lengths"][NAME]
    row = {name: np.zeros(S, int) for name in ("ids_BS", "positions_BS", "segment_ids_BS")}
    other = {name: np.zeros(T, int) for name in row}
    spans = {
        "student_chunk_BS": np.full(S, -1),
        "teacher_chunk_BT": np.full(T, -1),
        "student_start_BN": np.zeros(S, int),
        "teacher_start_BN": np.zeros(S, int),
        "mask_BN": np.zeros(S, bool),
    }
    target_mask = np.zeros(S, bool)
    s = t = chunk = 0
    for segment, text in enumerate(texts, start=1):
        ids = [tokenizer.encode([text], bos=True, eos=True)[0] for tokenizer in tokenizers]
        for side, offset, tokens in ((row, s, ids[0]), (other, t, ids[1])):
            for i, token in enumerate(tokens):
                side["ids_BS"][offset + i] = token
                side["positions_BS"][offset + i] = i
                side["segment_ids_BS"][offset + i] = segment
        target_mask[s : s + len(ids[0]) - 1] = True
        contents = [
            [tokenizer.token_bytes[id] for id in tokens]
            for tokenizer, tokens in zip((student, teacher), ids, strict=True)
        ]
        for a, b, c, d in slow_chunks(*contents):
            spans["student_chunk_BS"][s + a : s + b] = chunk
            spans["teacher_chunk_BT"][t + c : t + d] = chunk
            spans["student_start_BN"][chunk] = s + a
            spans["teacher_start_BN"][chunk] = t + c
            spans["mask_BN"][chunk] = a >= 1 and c >= 1
            chunk += 1
        s, t = s + len(ids[0]), t + len(ids[1])
    return row, other, spans, target_mask


def documents_of_rows(batch, texts):
    """The texts of each row, by the batch's records and its number of segments."""
    records = iter(batch.records)
    counts = batch.student["segment_ids_BS"].max(axis=1)
    return [[texts[int(record)] for record in islice(records, int(count))] for count in counts]


def assert_batch_is(batch, texts, tokenizers):
    rows = documents_of_rows(batch, texts)
    assert sum(map(len, rows)) == len(batch.records)
    for index, row in enumerate(rows):
        student, teacher, spans, target_mask = slow_row(row, tokenizers)
        for side, expected in ((batch.student, student), (batch.teachers[NAME].tokens, teacher)):
            for name, values in expected.items():
                used = expected["segment_ids_BS"] > 0  # positions of padding mean nothing
                np.testing.assert_array_equal(side[name][index][used], values[used], name)
            np.testing.assert_array_equal(side["segment_ids_BS"][index] > 0, used)
        for name, values in spans.items():
            np.testing.assert_array_equal(
                batch.teachers[NAME].spans[name][index], values, f"{name} of {row}"
            )
        np.testing.assert_array_equal(batch.target_mask_BS[index], target_mask)


class TestPacking:
    def test_rows_are_what_a_slow_loop_makes(self, examples, tokenizers):
        batches = list(islice(batches_of(examples), 8))
        for batch in batches:
            assert_batch_is(batch, sentences(60), tokenizers)
        assert max(len(batch.records) for batch in batches) > 4  # some row has two documents

    def test_a_teacher_with_bos_and_a_student_without(self, tokenizers):
        swapped = tokenizers[::-1]
        texts = sentences(20)
        batch = next(batches_of(examples_of(texts, swapped)))
        assert_batch_is(batch, texts, swapped)

    @settings(max_examples=15, deadline=None)
    @given(
        st.lists(st.text("0123456789 .aé\u2603\n", min_size=1, max_size=9), min_size=1, max_size=8)
    )
    def test_any_texts(self, tokenizers, texts):
        batches = batches_of(examples_of(texts, tokenizers), batch_size=2)
        assert_batch_is(next(batches), texts, tokenizers)

    def test_unpacking_gives_the_documents_back_on_both_sides(self, examples, tokenizers):
        texts = sentences(60)
        for batch in islice(batches_of(examples), 4):
            rows = documents_of_rows(batch, texts)
            sides = (batch.student, tokenizers[0]), (batch.teachers[NAME].tokens, tokenizers[1])
            for side, tokenizer in sides:
                for index, row in enumerate(rows):
                    segments = side["segment_ids_BS"][index]
                    found = [
                        tokenizer.bytes_of(side["ids_BS"][index][segments == number]).decode()
                        for number in range(1, segments.max() + 1)
                    ]
                    assert found == row

    def test_no_first_token_and_no_padding_is_scored(self, examples):
        for batch in islice(batches_of(examples), 8):
            teacher_side = batch.teachers[NAME]
            mask_BN = teacher_side.spans["mask_BN"]
            sides = (batch.student, "student_start_BN"), (teacher_side.tokens, "teacher_start_BN")
            for side, starts in sides:
                start_BN = teacher_side.spans[starts]
                position_BN = np.take_along_axis(side["positions_BS"], start_BN, axis=1)
                segment_BN = np.take_along_axis(side["segment_ids_BS"], start_BN, axis=1)
                assert (position_BN[mask_BN] >= 1).all()
                assert (segment_BN[mask_BN] >= 1).all()
            assert mask_BN.sum() > 50
            for chunk, side in (
                ("student_chunk_BS", batch.student),
                ("teacher_chunk_BT", teacher_side.tokens),
            ):
                assert (teacher_side.spans[chunk][side["segment_ids_BS"] == 0] == -1).all()

    def test_arrays_have_the_shapes_and_types_that_the_device_takes(self, examples):
        batch = next(batches_of(examples))
        teacher = batch.teachers[NAME]
        Spans(**{name: jnp.asarray(array) for name, array in teacher.spans.items()})
        assert teacher.spans["mask_BN"].shape == batch.student["ids_BS"].shape == (4, 64)
        assert teacher.tokens["ids_BS"].shape == (4, 96)
        arrays = [*batch.student.values(), *teacher.tokens.values(), *teacher.spans.values()]
        assert {array.dtype.name for array in arrays} == {"int32", "bool"}
        assert batch.num_tokens == (batch.student["segment_ids_BS"] > 0).sum() > 4 * 32


class TestSeveralTeachers:
    def test_each_is_as_if_it_were_alone(self, tokenizers):
        """With the student's rows as long as needed, so that the other side never decides."""
        student, teacher = tokenizers
        documents = [Document(text, str(i)) for i, text in enumerate(sentences(20))]

        def batches(teachers):
            lengths = {"student_length": 64, "teacher_lengths": dict.fromkeys(teachers, 200)}
            examples = make_examples(documents, student, teachers, **lengths)
            return islice(batch_dataset(examples, batch_size=2, seed=0, **lengths), 3)

        both = {"digits": teacher, "self": student}
        for names in (["digits"], ["self"], []):
            alone = batches({name: both[name] for name in names})
            for one, other in zip(batches(both), alone, strict=True):
                assert one.records == other.records
                np.testing.assert_array_equal(one.target_mask_BS, other.target_mask_BS)
                for name, values in one.student.items():
                    np.testing.assert_array_equal(values, other.student[name])
                assert list(other.teachers) == names
                for name in names:
                    sides = one.teachers[name], other.teachers[name]
                    for field, values in sides[0].tokens.items():
                        np.testing.assert_array_equal(values, sides[1].tokens[field])
                    for field, values in sides[0].spans.items():
                        np.testing.assert_array_equal(values, sides[1].spans[field])


def orders(examples, count, **options):
    return [batch.records for batch in islice(batches_of(examples, **options), count)]


class TestOrder:
    def test_the_seed_decides(self, examples):
        assert orders(examples, 12, seed=3) == orders(examples, 12, seed=3)
        assert orders(examples, 12, seed=3) != orders(examples, 12, seed=4)

    def test_it_is_endless_and_every_document_comes_once_an_epoch(self, examples):
        records = [record for order in orders(examples, 100) for record in order]
        counts = Counter(records)
        assert len(counts) == len(examples)
        assert min(counts.values()) >= len(records) // len(examples) - 2
        assert max(counts.values()) <= len(records) // len(examples) + 2

    def test_each_epoch_has_another_order(self, examples):
        records = [record for order in orders(examples, 40) for record in order]
        epochs = [records[:60], records[60:120]]
        assert epochs[0] != epochs[1]

    @pytest.mark.parametrize("taken", [0, 1, 5, 23])
    def test_a_saved_place_goes_on_identically(self, examples, taken):
        batches = batches_of(examples, seed=7)
        list(islice(batches, taken))
        state = json.loads(json.dumps(batches.get_state()))
        expected = list(islice(batches, 20))  # past the end of an epoch
        resumed = batches_of(examples, seed=7)
        resumed.set_state(state)
        for one, other in zip(expected, islice(resumed, 20), strict=True):
            assert one.records == other.records
            np.testing.assert_array_equal(one.student["ids_BS"], other.student["ids_BS"])
            sides = one.teachers[NAME], other.teachers[NAME]
            np.testing.assert_array_equal(*(side.tokens["ids_BS"] for side in sides))
            for name, values in sides[0].spans.items():
                np.testing.assert_array_equal(values, sides[1].spans[name])


class TestPaddedRows:
    def test_one_text_a_row_and_the_last_batch_is_filled_up(self):
        rows = [np.array([5, 6, 7]), np.array([8]), np.array([9, 10])]
        batches = list(padded_rows(rows, batch_size=2, length=4))
        ids = np.concatenate([batch["ids_BS"] for batch in batches])
        segments = np.concatenate([batch["segment_ids_BS"] for batch in batches])
        assert ids.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0], [9, 10, 0, 0], [0, 0, 0, 0]]
        assert segments.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
        assert batches[0]["positions_BS"].tolist() == [[0, 1, 2, 3]] * 2

    def test_a_row_is_cut_at_the_length(self):
        (batch,) = padded_rows([np.arange(1, 9)], batch_size=1, length=3)
        assert batch["ids_BS"].tolist() == [[1, 2, 3]]
