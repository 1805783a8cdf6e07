"""W: its two passes, its options, and every real pair."""

import numpy as np
import pytest

from xtoken_jax.errors import UsageError
from xtoken_jax.projection import build_projection, projection_record, retokenise
from xtoken_jax.projection.build import _rows
from xtoken_jax.projection.retokenise import Pieces
from xtoken_jax.text import Role

PAIRS = [
    ("llama3", "qwen3"),
    ("llama3", "smollm2-135m"),
    ("llama3", "mistral-v3"),
    ("llama4", "llama3"),
    ("mistral-v3", "tekken"),
]


def pieces_of(rows):
    offsets = np.cumsum([0, *map(len, rows)])
    return Pieces(np.array([id for row in rows for id in row], np.int32), offsets, np.array([]))


def test_weights_fall_by_gamma_and_are_normalised():
    ids, weights = _rows(pieces_of([[7, 8, 9], [4], []]), 0.9, 0.1, 4, drop=False)
    assert ids.tolist() == [[7, 8, 9, -1], [4, -1, -1, -1], [-1] * 4]
    np.testing.assert_allclose(
        weights, [[0.9009009, 0.0900901, 0.0090090, 0], [1, 0, 0, 0], [0] * 4], atol=1e-7
    )


def test_repeated_pieces_add_up_and_leave_no_hole():
    ids, weights = _rows(pieces_of([[5, 6, 5, 7]]), 0.9, 0.1, 4, drop=False)
    assert ids.tolist() == [[5, 6, 7, -1]]
    total = 1.111
    np.testing.assert_allclose(weights, [[1.01 / total, 0.1 / total, 0.001 / total, 0]], rtol=1e-6)


def test_long_rows_are_cut_or_dropped():
    long = pieces_of([[1, 2, 3], [4, 5]])
    cut, weights = _rows(long, 0.9, 0.1, 2, drop=False)
    assert cut.tolist() == [[1, 2], [4, 5]]
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    dropped, _ = _rows(long, 0.9, 0.1, 2, drop=True)
    assert dropped.tolist() == [[-1, -1], [4, 5]]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_pieces_of_real_pairs_spell_the_student_token(tokenizer, pair):
    student, teacher = map(tokenizer, pair)
    pieces = retokenise(student, teacher)
    empty = 0
    for id, content in enumerate(student.token_bytes):
        if not content:
            continue
        row = pieces[id]
        if len(row):
            assert teacher.bytes_of(row) == content, (id, content)
        else:
            empty += 1
        assert pieces.exact_V[id] == (content in teacher.id_of_bytes), content
    # SmolLM2 alone lacks bytes: 21 of them, and Llama-3 has each as a token.
    assert empty == (21 if pair[1] == "smollm2-135m" else 0)


@pytest.mark.parametrize("pair", PAIRS[:2], ids="-".join)
def test_rows_of_real_pairs_are_stochastic(tokenizer, pair):
    student, teacher = map(tokenizer, pair)
    projection = build_projection(student, teacher)
    sums = projection.weights_VK.sum(axis=1, dtype=np.float64)
    filled = np.ones(student.num_tokens, bool)
    filled[projection.empty_rows] = False
    np.testing.assert_allclose(sums[filled], 1, atol=1e-6)
    assert not sums[~filled].any()
    again = build_projection(student, teacher)
    np.testing.assert_array_equal(again.ids_VK, projection.ids_VK)
    np.testing.assert_array_equal(again.weights_VK, projection.weights_VK)


def test_control_tokens_go_to_their_role(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("tekken")
    pieces = retokenise(student, teacher)
    assert pieces[student.bos_id].tolist() == [teacher.bos_id]
    assert pieces[student.eos_id].tolist() == [teacher.eos_id]
    assert pieces[student.id_of_role[Role.PAD]].tolist() == [teacher.id_of_role[Role.PAD]]
    reserved = next(id for id, role in student.roles.items() if role == Role.NONE)
    assert len(pieces[reserved]) == 0


def test_a_packed_numeral_spreads_over_its_digits(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("smollm2-135m")
    projection = build_projection(student, teacher)
    record = projection_record(projection, student, teacher, tokens=[b"201", b" apples"])
    assert record["examples"][0]["pieces"] == ["2", "0", "1"]
    np.testing.assert_allclose(
        record["examples"][0]["weights"], [0.9009, 0.0901, 0.0090], atol=5e-5
    )
    assert record["examples"][1] == {"token": " apples", "pieces": [" apples"], "weights": [1.0]}
    assert (record["rows"], record["columns"]) == (128256, 49152)
    assert record["entries"] == (projection.ids_VK >= 0).sum()
    assert record["empty_rows"] == len(projection.empty_rows)
    with pytest.raises(UsageError, match="has no token 'zzzz'"):
        projection_record(projection, student, teacher, tokens=[b"zzzz"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0}, "`beta` must be positive, got 0"),
        ({"gamma": 1.5}, r"`gamma` must be in \[0, 1\], got 1.5"),
        ({"max_pieces": 0}, "`max_pieces` must be at least 1, got 0"),
        ({"long_pieces": "keep"}, "`long_pieces` must be one of"),
    ],
)
def test_bad_options_are_named(tokenizer, options, message):
    side = tokenizer("smollm2-135m")
    with pytest.raises(ValueError, match=message):
        build_projection(side, side, **options)
