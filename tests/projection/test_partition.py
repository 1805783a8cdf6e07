"""The common set of GOLD and H-KL."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xtoken_jax.projection import Projection, build_projection, exact_pairs, hybrid_pairs


def plain_pairs(projection, threshold):
    """The hybrid pairs, one claim at a time: `{student: (teacher, is_exact)}`."""
    pairs, taken, claims = {}, set(), []
    for s, (ids, weights) in enumerate(
        zip(projection.ids_VK.tolist(), projection.weights_VK.tolist(), strict=True)
    ):
        if projection.exact_pair_V[s]:
            pairs[s] = (ids[0], True)
            taken.add(ids[0])
        elif ids[0] >= 0:
            weight = max(weights)
            claims.append((-weight, s, ids[weights.index(weight)]))
    for negative, s, t in sorted(claims):
        if -negative >= np.float32(threshold) and t not in taken:
            pairs[s] = (t, False)
            taken.add(t)
    return dict(sorted(pairs.items()))


@st.composite
def projections(draw):
    num_rows, width, num_columns = (draw(st.integers(1, most)) for most in (7, 3, 5))
    ids = np.full((num_rows, width), -1, np.int32)
    weights = np.zeros((num_rows, width), np.float32)
    exact, paired = np.zeros(num_rows, bool), set()
    columns = st.lists(st.integers(0, num_columns - 1), max_size=width, unique=True)
    for s in range(num_rows):
        row = draw(columns)
        parts = [draw(st.integers(1, 3)) for _ in row]
        for at, (t, part) in enumerate(zip(row, parts, strict=True)):
            ids[s, at], weights[s, at] = t, part / sum(parts)
        if len(row) == 1 and row[0] not in paired and draw(st.booleans()):
            exact[s] = True
            paired.add(row[0])
    return Projection(ids, weights, num_rows, num_columns, "s", "t", {}, exact)


@settings(deadline=None)
@given(projections(), st.sampled_from([0.0, 0.5, 0.6, 1.0]))
def test_pairs_are_those_of_the_definition(projection, threshold):
    found = hybrid_pairs(projection, threshold=threshold)
    pairs = zip(found.teacher_ids_N.tolist(), found.is_exact_N.tolist(), strict=True)
    as_dict = dict(zip(found.student_ids_N.tolist(), pairs, strict=True))
    expected = plain_pairs(projection, threshold)
    assert list(as_dict.items()) == list(expected.items())  # in order of student id
    exact = exact_pairs(projection)
    assert exact.student_ids_N.tolist() == [s for s, (_, is_exact) in expected.items() if is_exact]
    assert exact.teacher_ids_N.tolist() == [t for t, is_exact in expected.values() if is_exact]
    assert exact.is_exact_N.all()
    for pairs in (found, exact):
        assert (pairs.student_ids_N.dtype, pairs.teacher_ids_N.dtype) == (np.int32, np.int32)
        assert len(pairs) == len(pairs.student_ids_N)


def test_the_larger_weight_then_the_lower_student_wins():
    ids = np.array([[3, 0], [3, 1], [3, 2], [3, -1], [1, -1]], np.int32)
    weights = np.array([[0.6, 0.4], [0.8, 0.2], [0.8, 0.2], [0.7, 0], [1, 0]], np.float32)
    projection = Projection(ids, weights, 5, 4, "s", "t", {}, np.zeros(5, bool))
    found = hybrid_pairs(projection)
    assert found.student_ids_N.tolist() == [1, 4]
    assert found.teacher_ids_N.tolist() == [3, 1]
    exact = np.array([False, False, False, True, False])
    found = hybrid_pairs(dataclasses.replace(projection, exact_pair_V=exact))
    assert found.student_ids_N.tolist() == [3, 4]
    assert found.is_exact_N.tolist() == [True, False]


def test_the_threshold_itself_is_enough():
    ids, weights = np.array([[0, 1]], np.int32), np.array([[0.6, 0.4]], np.float32)
    projection = Projection(ids, weights, 1, 2, "s", "t", {}, np.zeros(1, bool))
    assert len(hybrid_pairs(projection, threshold=0.6)) == 1
    assert len(hybrid_pairs(projection, threshold=0.601)) == 0


def test_a_real_pair(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("smollm2-135m")
    projection = build_projection(student, teacher)
    found = hybrid_pairs(projection)
    assert (len(found), int(found.is_exact_N.sum())) == (39755, 39312)
    assert len(np.unique(found.teacher_ids_N)) == len(found)
    of_student = dict(zip(found.student_ids_N.tolist(), found.teacher_ids_N.tolist(), strict=True))
    assert of_student[student.id_of_bytes[b" apples"]] == teacher.id_of_bytes[b" apples"]
    assert student.id_of_bytes[b"201"] not in of_student  # "2" belongs to "2"


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_bad_threshold_is_named(threshold):
    ids, weights = np.array([[0]], np.int32), np.array([[1]], np.float32)
    projection = Projection(ids, weights, 1, 1, "s", "t", {}, np.ones(1, bool))
    with pytest.raises(ValueError, match=rf"`threshold` must be in \[0, 1\], got {threshold}"):
        hybrid_pairs(projection, threshold=threshold)


def test_exact_rows_must_be_known():
    ids, weights = np.array([[0]], np.int32), np.array([[1]], np.float32)
    projection = Projection(ids, weights, 1, 1, "s", "t", {})
    for pairs in (exact_pairs, hybrid_pairs):
        with pytest.raises(ValueError, match="must say which rows are exact"):
            pairs(projection)
