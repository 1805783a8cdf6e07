"""Which row comes where: decided by the seed and the place alone."""

import functools
from collections.abc import Sequence

import numpy as np

# Places after which a mixture repeats which source comes where; shares are exact to one in so many.
_PERIOD = 10_000


class RowOrder:
    """Rows of one source or a mixture, each source in an order drawn anew for each of its epochs.

    Args:
        num_rows: Of each source, whose rows are numbered one source after the other.
        weights: How often a row of each source comes, in proportion; None for a single epoch over
            all of them.
        seed: Of the orders.
    """

    def __init__(
        self, num_rows: Sequence[int], seed: int, *, weights: Sequence[float] | None = None
    ) -> None:
        sizes = list(num_rows) if weights is not None else [sum(num_rows)]
        self._sizes = np.array(sizes)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._pattern, self._rank = _pattern(weights or [1.0])
        self._counts = np.bincount(self._pattern, minlength=len(sizes))
        self._epoch = functools.lru_cache(maxsize=2 * len(sizes))(self._draw)
        self._seed = seed

    def _draw(self, source: int, epoch: int) -> np.ndarray:
        draw = np.random.default_rng((self._seed, source, epoch))
        return draw.permutation(self._sizes[source])

    def rows(self, first: int, count: int) -> list[int]:
        """The rows at `count` places from the `first`, counted through all epochs."""
        return [self._row(place) for place in range(first, first + count)]

    def _row(self, place: int) -> int:
        period, at = divmod(place, len(self._pattern))
        source = int(self._pattern[at])
        before = period * int(self._counts[source]) + int(self._rank[at])
        epoch, within = divmod(before, int(self._sizes[source]))
        return int(self._starts[source] + self._epoch(source, epoch)[within])


def _pattern(weights: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The source of each place of a period, and how many places of that source come before it.

    Each place goes to the source that is furthest behind its share, so that sources alternate.
    """
    share = np.array(weights) / sum(weights)
    if len(share) == 1:
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    pattern, rank = np.zeros(_PERIOD, np.int64), np.zeros(_PERIOD, np.int64)
    given = np.zeros(len(share), np.int64)
    for place in range(_PERIOD):
        source = int(np.argmax(share * (place + 1) - given))
        pattern[place], rank[place] = source, given[source]
        given[source] += 1
    return pattern, rank
