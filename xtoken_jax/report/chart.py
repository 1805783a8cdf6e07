"""Curves as SVG: several runs in one picture, told apart by colour and by dashes."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from xtoken_jax.report.page import visible

MOST_POINTS = 300  # of a curve; of one with more, means of neighbours are drawn

_WIDTH, _HEIGHT = 400, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 380, 24, 190  # of the plot
_NUM_TICKS = 4
_NUM_STYLES = 6  # colours, and ways to dash, in run.css

Points = Sequence[tuple[float, float]]  # steps and values


def chart(title: str, unit: str, curves: Mapping[str, Points]) -> str:
    """A figure with a curve over the steps for each run that has points.

    Args:
        title: What is drawn.
        unit: Of the values; may be empty.
        curves: Steps and values by run, in order of steps. A run's place decides its style. At
            least one has a point.
    """
    drawn = {name: thinned(points) for name, points in curves.items() if points}
    told = {name: _told(name, curves[name]) for name in drawn}
    values = np.concatenate([points[:, 1] for points in drawn.values()])
    rows = ticks(*_value_range(values.min(), values.max()))
    steps = [step for points in curves.values() for step, _ in points]
    first, last = min(steps), max(steps)
    place = _Place((first, last), (rows[0], rows[-1]))
    styles = {name: style(index) for index, name in enumerate(curves)}
    lines = "\n".join(
        f'<path class="curve {styles[name]}" d="{place.path(points)}">'
        f"<title>{html.escape(told[name])}</title></path>"
        for name, points in drawn.items()
    )
    label = html.escape(f"{title}{f', {unit}' if unit else ''}: {'; '.join(told.values())}")
    return f"""<figure>
<figcaption>{html.escape(title)}</figcaption>
<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">
{"".join(_rows(rows, place))}
{"".join(_columns(first, last, place))}
<text x="{_LEFT}" y="12">{html.escape(unit)}</text>
<text x="{_RIGHT}" y="{_HEIGHT - 2}" class="end">step</text>
{lines}
</svg>
</figure>"""


def sample(index: int) -> str:
    """A short piece of a run's curve, for a legend."""
    return (
        '<svg class="sample" viewBox="0 0 36 8" aria-hidden="true">'
        f'<path class="curve {style(index)}" d="M1 4H35"/></svg>'
    )


def style(index: int) -> str:
    """CSS classes of a run's curve; the first 36 runs have different ones."""
    return f"colour{index % _NUM_STYLES} dash{(index + index // _NUM_STYLES) % _NUM_STYLES}"


def thinned(points: Points) -> np.ndarray:
    """At most `MOST_POINTS` points, shape [N, 2]: where there are more, means of as many each."""
    points_N2 = np.asarray(points, dtype=np.float64)
    size = math.ceil(len(points_N2) / MOST_POINTS)
    parts = np.split(points_N2, range(size, len(points_N2), size))
    return np.array([part.mean(axis=0) for part in parts])


def ticks(low: float, high: float) -> list[float]:
    """Round numbers at equal distances, a few, of which the ends enclose `low` < `high`."""
    least = (high - low) / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.999999 * least)
    # What division leaves of a whole number must not add a tick.
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [number * step for number in range(first, last + 1)]


def _value_range(low: float, high: float) -> tuple[float, float]:
    """What the axis is to show: all values, and 0 where that is not far."""
    if low == high:
        low, high = min(low, 0.0), max(high, 0.0)
    if 0 <= low <= high / 2:
        low = 0.0
    return (low, high) if low < high else (0.0, 1.0)


class _Place:
    """Where steps and values are in the picture."""

    def __init__(self, steps: tuple[float, float], values: tuple[float, float]) -> None:
        self._steps, self._values = steps, values

    def x(self, step: float) -> float:
        first, last = self._steps
        return _LEFT + (_RIGHT - _LEFT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(self, value: float) -> float:
        low, high = self._values
        return _BOTTOM - (_BOTTOM - _TOP) * (value - low) / (high - low)

    def path(self, points_N2: np.ndarray) -> str:
        """A line through the points; a dot where there is one alone."""
        corners = [f"{self.x(step):.1f} {self.y(value):.1f}" for step, value in points_N2]
        return f"M{'L'.join(corners)}{'h0' if len(corners) == 1 else ''}"


def _rows(values: Sequence[float], place: _Place) -> Iterator[str]:
    for value in values:
        y = place.y(value)
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="end">{_number(value)}</text>'


def _columns(first: float, last: float, place: _Place) -> Iterator[str]:
    steps = ticks(first, last) if last > first else [first]
    for step in steps:
        if first <= step <= last and step == round(step):
            x = place.x(step)
            yield f'<path class="grid" d="M{x:.1f} {_BOTTOM}v4"/>'
            yield f'<text x="{x:.1f}" y="{_BOTTOM + 16}" class="middle">{_number(step)}</text>'


def _number(value: float) -> str:
    return f"{value:,.10g}"


def _told(name: str, points: Points) -> str:
    """The ends of a curve in words."""
    (first, before), (last, after) = points[0], points[-1]
    ends = [f"{before:.4g} at step {first:,.0f}", f"{after:.4g} at step {last:,.0f}"]
    return f"{visible(name, space=' ')}: {', '.join(ends[: len(points)])}"
