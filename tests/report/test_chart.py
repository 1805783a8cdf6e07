import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtoken_jax.report.chart import MOST_POINTS, chart, style, thinned, ticks


def corners(content: str) -> list[list[tuple[float, float]]]:
    """Of each curve."""
    return [
        [tuple(map(float, corner.split())) for corner in path.removesuffix("h0").split("L")]
        for path in re.findall(r'class="curve [^"]*" d="M([^"]*)"', content)
    ]


def rows(content: str) -> dict[float, float]:
    """Heights of the lines of the grid, by the values beside them."""
    found = re.findall(r'd="M52 ([\d.]+)H380"/><text [^>]*>([^<]*)</text>', content)
    return {float(value.replace(",", "")): float(y) for y, value in found}


class TestTicks:
    @given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
    def test_round_numbers_that_enclose_both(self, low, span):
        high = low + span
        if high == low:
            return
        found = ticks(low, high)
        steps = {
            round((after - before) / (found[1] - found[0]), 3) for before, after in pairwise(found)
        }
        assert 2 <= len(found) <= 6
        assert steps == {1.0}
        assert found[0] <= low + 1e-5 * span + 1e-9
        assert found[-1] >= high - 1e-5 * span - 1e-9

    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [
            (0, 40, [0, 10, 20, 30, 40]),
            (1.4, 4.9, [1, 2, 3, 4, 5]),
            (0, 0.0031, [0, 0.001, 0.002, 0.003, 0.004]),
            (-3, 3, [-4, -2, 0, 2, 4]),
        ],
    )
    def test_known(self, low, high, expected):
        np.testing.assert_allclose(ticks(low, high), expected)


class TestThinned:
    def test_few_points_stay_as_they_are(self):
        points = [(step, step**2) for step in range(MOST_POINTS)]
        np.testing.assert_array_equal(thinned(points), points)

    @pytest.mark.parametrize("count", [MOST_POINTS + 1, 2 * MOST_POINTS, 12345])
    def test_means_of_neighbours(self, count):
        points = [(step, 2.0 * step) for step in range(count)]
        found = thinned(points)
        size = -(-count // MOST_POINTS)
        assert MOST_POINTS / 2 < len(found) <= MOST_POINTS
        np.testing.assert_allclose(found[0], [(size - 1) / 2, size - 1])
        np.testing.assert_allclose(found[:, 1], 2 * found[:, 0])


class TestChart:
    def test_values_are_where_the_axis_says(self):
        content = chart("loss", "nats", {"a": [(1, 4.0), (2, 3.0), (3, 2.0)]})
        heights = rows(content)
        ((first, second, third),) = corners(content)
        assert (first[0], third[0]) == (52, 380)
        assert second[0] == (52 + 380) / 2
        assert [first[1], third[1]] == [heights[4], heights[2]]
        assert heights[4] < heights[2] < heights[0]

    def test_axes_have_units(self):
        content = chart("loss", "nats & bits", {"a": [(1, 4.0), (2000, 3.5)]})
        assert ">nats &amp; bits</text>" in content
        assert ">step</text>" in content
        assert re.findall(r'class="middle">([^<]*)', content) == ["500", "1,000", "1,500", "2,000"]

    def test_runs_share_the_axes_and_keep_their_styles(self):
        content = chart("x", "", {"a": [(1, 1.0), (2, 2.0)], "none": [], "b": [(2, 1.0), (9, 9.0)]})
        a, b = corners(content)
        assert a[1][0] == b[0][0]  # step 2
        assert a[0][1] == b[0][1]  # the value 1
        assert f'class="curve {style(0)}"' in content
        assert f'class="curve {style(2)}"' in content
        assert 'aria-label="x: a: 1 at step 1, 2 at step 2; b: 1 at step 2, 9 at step 9"' in content

    def test_one_step_alone_is_a_dot(self):
        content = chart("x", "", {"a": [(7, 1.5)]})
        assert 'd="M216.0 ' in content
        assert 'h0"' in content
        assert re.findall(r'class="middle">([^<]*)', content) == ["7"]

    @pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-9, 1e30])
    def test_a_value_that_does_not_change(self, value):
        ((first, last),) = corners(chart("x", "", {"a": [(1, value), (2, value)]}))
        assert first[1] == last[1]
        assert 24 <= first[1] <= 190

    def test_values_near_0_are_shown_from_0(self):
        assert 0 in rows(chart("x", "", {"a": [(1, 1.0), (2, 2.0)]}))
        assert 0 not in rows(chart("x", "", {"a": [(1, 1.1), (2, 2.0)]}))


def test_the_first_runs_differ_in_style():
    assert len({style(index) for index in range(36)}) == 36
    for kind in ("colour", "dash"):
        assert len({re.search(rf"{kind}\d", style(index))[0] for index in range(6)}) == 6
