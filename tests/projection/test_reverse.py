"""Adding entries to rows of W."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from xtoken_jax.projection.reverse import add_entries


def plainly_added(ids_VK, weights_VK, entries):
    """What `add_entries` does, from its definition."""
    rows = [
        {t: float(w) for t, w in zip(ids, weights, strict=True) if t >= 0}
        for ids, weights in zip(ids_VK.tolist(), weights_VK.tolist(), strict=True)
    ]
    for student_id, teacher_id, weight in entries:
        rows[student_id][teacher_id] = rows[student_id].get(teacher_id, 0.0) + weight
    changed = {student_id for student_id, _, _ in entries}
    kept = []
    for index, row in enumerate(rows):
        best = list(row.items())
        if index in changed:
            best = sorted(best, key=lambda entry: (-entry[1], entry[0]))[: ids_VK.shape[1]]
            total = sum(weight for _, weight in best)
            best = [(t, weight / total) for t, weight in best]
        kept.append(best)
    return kept


@st.composite
def cases(draw):
    num_rows, width, num_columns = (draw(st.integers(1, most)) for most in (5, 3, 6))
    weight = st.sampled_from([0.25, 0.5, 1.0])  # sums of these are exact, so ties are
    ids = np.full((num_rows, width), -1, np.int32)
    weights = np.zeros((num_rows, width), np.float32)
    columns = st.lists(st.integers(0, num_columns - 1), max_size=width, unique=True)
    for row in range(num_rows):
        for at, teacher_id in enumerate(draw(columns)):
            ids[row, at], weights[row, at] = teacher_id, draw(weight)
    entry = st.tuples(st.integers(0, num_rows - 1), st.integers(0, num_columns - 1), weight)
    return ids, weights, draw(st.lists(entry, max_size=12))


@settings(deadline=None)
@given(cases())
def test_the_largest_entries_stay(case):
    ids, weights, entries = case
    expected = plainly_added(ids, weights, entries)
    columns = [np.array(column) for column in zip(*entries, strict=True)] or [
        np.zeros(0, np.int32),
        np.zeros(0, np.int64),
        np.zeros(0),
    ]
    add_entries(ids, weights, *columns)
    assert [[t for t in row if t >= 0] for row in ids.tolist()] == [
        [t for t, _ in row] for row in expected
    ]
    for row, entries_of_row in zip(weights, expected, strict=True):
        np.testing.assert_allclose(
            row[: len(entries_of_row)], [weight for _, weight in entries_of_row], rtol=1e-6
        )
        assert not row[len(entries_of_row) :].any()
