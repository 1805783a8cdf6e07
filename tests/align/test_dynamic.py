"""The dynamic programme against the full table, and its bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.align.sides import Vocabulary
from tests.reference.alignment import COMBINED, GAP, MATCH, needleman_wunsch
from xtoken_jax.align import dynamic
from xtoken_jax.align.dynamic import align_windows

WORDS = st.lists(st.sampled_from([b"a", b"b", b"aa", b"ab", b"ba", b"aab", b"abab"]), max_size=9)


def windows_of(texts):
    """Both sides of texts given as pairs of lists of byte strings, and a window for each."""
    vocabulary = Vocabulary()
    sides = [vocabulary.side([pair[i] for pair in texts]) for i in (0, 1)]
    bounds = [np.stack([s.offsets_B[:-1], s.offsets_B[1:]], axis=1) for s in sides]
    return *sides, np.concatenate(bounds, axis=1)


def chunks_by_text(found, windows_W4):
    """Each window's chunks in order, counted from its own first tokens."""
    origin = windows_W4[:, [0, 0, 2, 2]]
    return [
        sorted(
            tuple(chunk - origin[window])
            for chunk in found
            if windows_W4[window, 0] <= chunk[0] < windows_W4[window, 1]
        )
        for window in range(len(windows_W4))
    ]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_equals_the_full_table(texts):
    student, teacher, windows_W4 = windows_of(texts)
    found = chunks_by_text(align_windows(student, teacher, windows_W4), windows_W4)
    for pair, chunks in zip(texts, found, strict=True):
        assert chunks == needleman_wunsch(*pair)[1], pair


@pytest.mark.parametrize(
    ("student", "teacher", "chunks"),
    [
        ([b"x"], [b"x"], [(0, 1, 0, 1)]),
        ([b"x"], [b"y"], []),
        ([b"201"], [b"2", b"0", b"1"], [(0, 1, 0, 3)]),
        ([b"2", b"0", b"1"], [b"201"], [(0, 3, 0, 1)]),
        ([b"12345"], [b"1", b"2", b"3", b"4", b"5"], []),  # five are too many to combine
        ([b"a"], [b"a", b"a"], [(0, 1, 1, 2)]),  # of equals, the last: ties prefer a match
        ([b"a", b"b"], [b"b", b"a"], [(0, 1, 1, 2)]),
    ],
)
def test_known_alignments(student, teacher, chunks):
    sides = windows_of([(student, teacher)])
    assert chunks_by_text(align_windows(*sides), sides[2]) == [chunks]
    assert needleman_wunsch(student, teacher)[1] == chunks


def test_the_reference_scores_as_the_design_says():
    assert needleman_wunsch([b"a", b"b"], [b"a", b"b"])[0] == 2 * MATCH
    assert needleman_wunsch([b"abc"], [b"a", b"b", b"c"])[0] == 3 * COMBINED
    assert needleman_wunsch([b"a"], [b"b", b"c"])[0] == 3 * GAP


def test_no_window_no_chunk():
    student, teacher, _ = windows_of([([b"a"], [b"a"])])
    assert align_windows(student, teacher, np.zeros((0, 4), np.int64)).shape == (0, 4)


def test_large_windows_are_cut_along_the_diagonal(monkeypatch):
    monkeypatch.setattr(dynamic, "_MAX_WINDOW_CELLS", 16)
    monkeypatch.setattr(dynamic, "_MAX_BATCH_CELLS", 64)
    tokens = [bytes([i]) for i in range(100)]
    sides = windows_of([(tokens, tokens), (tokens[:3], tokens[:5])])
    whole, small = chunks_by_text(align_windows(*sides), sides[2])
    assert whole == [(i, i + 1, i, i + 1) for i in range(100)]
    assert small == [(i, i + 1, i, i + 1) for i in range(3)]


def test_two_thousand_tokens_with_nothing_in_common_are_all_gaps():
    student = [b"%d" % i for i in range(2000)]
    teacher = [b"x%d" % i for i in range(2000)]
    sides = windows_of([(student, teacher)])
    assert align_windows(*sides).shape == (0, 4)
