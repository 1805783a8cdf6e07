from collections import Counter

import pytest

from xtoken_jax.data.order import RowOrder


def test_every_row_comes_once_an_epoch_in_an_order_of_its_own():
    order = RowOrder([3, 4], seed=1)
    epochs = [order.rows(7 * epoch, 7) for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_any_place_can_be_asked_for_alone():
    order = RowOrder([50, 5], seed=1, weights=[1, 3])
    rows = order.rows(0, 300)
    fresh = RowOrder([50, 5], seed=1, weights=[1, 3])
    assert [fresh.rows(place, 1)[0] for place in reversed(range(300))] == rows[::-1]
    assert RowOrder([50, 5], seed=2, weights=[1, 3]).rows(0, 300) != rows


@pytest.mark.parametrize("weights", [[1.0, 3.0], [0.2, 0.6]])
def test_a_mixture_has_its_shares_throughout_whatever_the_sizes(weights):
    order = RowOrder([50, 5], seed=0, weights=weights)
    for first in (0, 9_990, 123_456):
        sources = Counter(row < 50 for row in order.rows(first, 400))
        assert sources[True] == pytest.approx(100, abs=2)


def test_a_source_of_a_mixture_has_epochs_of_its_own():
    order = RowOrder([50, 5], seed=0, weights=[1, 3])
    small = [row for row in order.rows(0, 400) if row >= 50]
    for at in range(0, 300, 5):
        assert sorted(small[at : at + 5]) == [50, 51, 52, 53, 54]
