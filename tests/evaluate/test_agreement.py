import numpy as np
import pytest

from tests.evaluate.test_bits import plain_logits
from tests.tiny import sentences, tiny_model
from xtoken_jax.align import align
from xtoken_jax.evaluate import Reading, read_texts, top1_agreement
from xtoken_jax.models.weights import load_model
from xtoken_jax.text import ByteTokenizer

TEXTS = [*sentences(5, seed=3), "7"]


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    paths = [tiny_model(directory / str(packs), packs_digits=packs) for packs in (True, False)]
    return [(load_model(path), ByteTokenizer.load(path)) for path in paths]


def read(side, *, block_tokens=64):
    return read_texts(*side, TEXTS, batch_size=3, length=80, block_tokens=block_tokens)


@pytest.mark.parametrize("block_tokens", [1, 64, 100])
def test_guesses_are_the_likeliest_tokens(sides, block_tokens):
    for model, tokenizer in sides:
        found = read((model, tokenizer), block_tokens=block_tokens).guesses_N
        expected = []
        for text in TEXTS:
            logits_SV, ids = plain_logits(model, tokenizer, text)
            expected += logits_SV[: len(ids) - 1].argmax(axis=1).tolist()
        assert found.tolist() == expected


def test_agreement_is_counted_over_chunks_of_one_token_each(sides):
    readings = [read(side) for side in sides]
    student, teacher = readings
    # Make the guesses known: the student is right everywhere, the teacher in every other token.
    student.guesses_N[:] = student.encoded.ids_N
    teacher.guesses_N[:] = teacher.encoded.ids_N
    teacher.guesses_N[::2] = teacher.tokenizer.id_of_bytes[b"#"]
    same = total = 0
    chunks = align(student.encoded, teacher.encoded, student.tokenizer, teacher.tokenizer)
    for index in range(len(TEXTS)):
        for a, b, c, d in chunks[index].tolist():
            if (b - a, d - c) == (1, 1):
                total += 1
                same += (teacher.encoded.offsets_B[index] + c) % 2
    found = top1_agreement(student, teacher)
    assert found.num_chunks == total < len(student.encoded.ids_N)
    assert found.share == pytest.approx(same / total)
    assert 0 < same < total


def test_a_model_agrees_with_itself(sides):
    reading = read(sides[0])
    assert top1_agreement(reading, reading).share == 1.0


def test_ends_are_the_same_whatever_they_are_called(sides):
    readings = [read(side) for side in sides]
    for reading in readings:
        reading.guesses_N[:] = reading.tokenizer.eos_id
    assert top1_agreement(*readings).share == 1.0
    readings[0].guesses_N[:] = readings[0].tokenizer.id_of_bytes[b"a"]
    assert top1_agreement(*readings).share == 0.0


def test_without_such_a_chunk_there_is_no_share(sides):
    empty = [
        Reading(tokenizer, b"", tokenizer.encode([""]), np.zeros(0), np.zeros(0, np.int32))
        for _, tokenizer in sides
    ]
    found = top1_agreement(*empty)
    assert found.to_dict() == {"share": None, "num_chunks": 0}
