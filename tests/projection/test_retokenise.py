"""Teacher tokens that spell a student token."""

import itertools

import numpy as np
import pytest

from xtoken_jax.projection import retokenise
from xtoken_jax.projection.options import BuildOptions
from xtoken_jax.projection.weights import rows_of_pieces
from xtoken_jax.text import Role

ASSETS = ("llama3", "llama4", "qwen3", "tekken", "mistral-v3", "deepseek", "smollm2-135m")
PAIRS = list(itertools.permutations(ASSETS, 2))


def spelled(teacher, pieces):
    """The bytes of each row."""
    content = teacher.bytes_of(pieces.ids_N)
    lengths = np.array([len(token) for token in teacher.token_bytes])
    ends = np.concatenate([[0], np.cumsum(lengths[pieces.ids_N])])[pieces.offsets_V].tolist()
    return [content[start:end] for start, end in itertools.pairwise(ends)]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_rows_of_every_pair_spell_the_student_token(tokenizer, pair):
    student, teacher = map(tokenizer, pair)
    pieces = retokenise(student, teacher)
    rows = list(zip(spelled(teacher, pieces), student.token_bytes, strict=True))
    assert [(row, content) for row, content in rows if row not in (content, b"")] == []
    lost = [content for row, content in rows if content and not row]
    # Bytes that SmolLM2 lacks; and Mistral's sign for a space, which DeepSeek has in names.
    lacked = {byte for byte in range(256) if bytes([byte]) not in teacher.id_of_bytes}
    assert [
        content for content in lost if not lacked & {*content} and "▁".encode() not in content
    ] == []
    assert len(lost) <= 27
    exact = [content in teacher.id_of_bytes for content in student.token_bytes]
    np.testing.assert_array_equal(pieces.exact_V, exact)

    ids_VK, weights_VK = rows_of_pieces(pieces, BuildOptions())
    is_filled = pieces.lengths_V > 0
    np.testing.assert_array_equal(ids_VK[:, 0] >= 0, is_filled)
    np.testing.assert_allclose(weights_VK.sum(axis=1, dtype=np.float64), is_filled, atol=1e-6)
    # Rows that neither repeat a piece nor are cut hold their pieces, in order.
    is_whole = (ids_VK >= 0).sum(axis=1) == pieces.lengths_V
    assert is_whole.mean() > 0.7
    of_whole = np.repeat(is_whole, pieces.lengths_V)
    np.testing.assert_array_equal(ids_VK[is_whole][ids_VK[is_whole] >= 0], pieces.ids_N[of_whole])


@pytest.mark.parametrize("name", ["qwen3", "mistral-v3"])
def test_tokens_that_are_not_utf8_have_pieces(tokenizer, name):
    student, teacher = tokenizer("llama3"), tokenizer(name)
    pieces = retokenise(student, teacher)
    count = 0
    for id, content in enumerate(student.token_bytes):
        if content.decode(errors="replace").encode() != content:
            count += 1
            assert teacher.bytes_of(pieces[id]) == content
    assert count == 1352


def test_pieces_are_the_teachers_own_cut(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("smollm2-135m")
    pieces = retokenise(student, teacher)
    for text in ("201", "));\r\n", "////////////////", "日本"):
        expected = teacher.encode([text])[0].tolist()
        assert len(expected) > 1
        assert pieces[student.id_of_bytes[text.encode()]].tolist() == expected


def test_control_tokens_go_to_their_role(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("tekken")
    pieces = retokenise(student, teacher)
    assert pieces[student.bos_id].tolist() == [teacher.bos_id]
    assert pieces[student.eos_id].tolist() == [teacher.eos_id]
    assert pieces[student.id_of_role[Role.PAD]].tolist() == [teacher.id_of_role[Role.PAD]]
    reserved = next(id for id, role in student.roles.items() if role == Role.NONE)
    assert len(pieces[reserved]) == 0


def test_a_role_that_the_teacher_lacks_falls_to_the_tokens_next_role(tokenizer):
    student, teacher = tokenizer("smollm2-135m"), tokenizer("qwen3")
    start = student.id_of_role[Role.TURN_START]
    assert student.roles[start] == Role.BOS | Role.TURN_START  # Qwen has no bos
    assert retokenise(student, teacher)[start].tolist() == [teacher.id_of_role[Role.TURN_START]]
