"""Curves of what runs logged, and their speed in numbers."""

import html
from collections.abc import Mapping, Sequence
from statistics import fmean, median

from xtoken_jax.report.chart import MOST_POINTS, chart, sample
from xtoken_jax.report.page import table, visible
from xtoken_jax.report.runs import Run

# Titles and units of metrics, in the order in which they are drawn.
_METRICS = {
    "loss": ("loss: what is minimised", "nats"),
    "cross_entropy": ("cross-entropy", "nats per token"),
    "distillation": ("distillation", "nats per chunk"),
}
_OF_A_TEACHER = {
    "distillation": ("distillation from {}", "nats per chunk"),
    "agreement": ("agreement with {} through W", "share of chunks"),
    "unreachable": ("what W cannot reach of {}", "share of probability"),
    "weight": ("weight of {}", ""),
}
_OF_THE_OPTIMISER = {
    "gradient_norm": ("gradient norm, before clipping", ""),
    "learning_rate": ("learning rate", ""),
}
_OF_SPEED = {
    "tokens_per_second": ("speed", "student tokens per second"),
    "data_seconds": ("wait for data", "seconds a step"),
    "utilisation": ("filled places of the student's rows", "share"),
}
_NOT_DRAWN = ("step", "num_chunks")


def curves(runs: Sequence[Run]) -> str:
    """A chart for each metric that some run logged, but for those of speed; perhaps none."""
    names = dict.fromkeys(name for run in runs for record in run.metrics for name in record)
    others = {
        name: _title(name)
        for name in names
        if name not in _METRICS | _OF_THE_OPTIMISER | _OF_SPEED
        and name.rpartition("/")[2] not in _NOT_DRAWN
    }
    others = dict(sorted(others.items(), key=lambda item: _order(item[0])))
    if not any(_has_several_teachers(run) for run in runs):
        # The loss of the only teacher is `distillation`.
        others = {name: told for name, told in others.items() if not _is_of_a_teacher(name)}
    return _charts(runs, _METRICS | others | _OF_THE_OPTIMISER)


def speed(runs: Sequence[Run]) -> str:
    """Numbers and charts of how fast the runs were; nothing where none logged it."""
    charts = _charts(runs, _OF_SPEED)
    rows = [["run", "student tokens/s, median", "wait for data, median", "in all", "filled places"]]
    for run in runs:
        rates, waits, shares = ([value for _, value in run.points(name)] for name in _OF_SPEED)
        if rates and waits and shares:
            wait = f"{1000 * median(waits):,.1f} ms a step"
            cells = f"{median(rates):,.0f}", wait, f"{sum(waits):,.1f} s", f"{fmean(shares):.1%}"
            rows.append([run.name, *cells])
    return table(rows) + charts if len(rows) > 1 else charts


def _has_several_teachers(run: Run) -> bool:
    return bool(run.metrics) and sum(map(_is_of_a_teacher, run.metrics[0])) > 1


def _is_of_a_teacher(name: str) -> bool:
    return name.endswith("/distillation")


def _order(name: str) -> int:
    """What is known of teachers together, all else behind it."""
    known = list(_OF_A_TEACHER)
    metric = name.rpartition("/")[2]
    return known.index(metric) if metric in known else len(known)


def _title(name: str) -> tuple[str, str]:
    teacher, _, metric = name.rpartition("/")
    if teacher and metric in _OF_A_TEACHER:
        title, unit = _OF_A_TEACHER[metric]
        return title.format(visible(teacher, space=" ")), unit
    return visible(name.replace("_", " "), space=" "), ""


def _charts(runs: Sequence[Run], metrics: Mapping[str, tuple[str, str]]) -> str:
    figures, most = [], 0
    for name, (title, unit) in metrics.items():
        points = {run.name: run.points(name) for run in runs}
        if any(points.values()):
            figures.append(chart(title, unit, points))
            most = max(most, *map(len, points.values()))
    if not figures:
        return ""
    thinned = f"Of more than {MOST_POINTS} steps, means of neighbours are drawn."
    note = f'<p class="note">{thinned}</p>' if most > MOST_POINTS else ""
    return f'{_legend(runs)}{note}<div class="charts">{"".join(figures)}</div>'


def _legend(runs: Sequence[Run]) -> str:
    """Which curve is which run's, where there are several."""
    if len(runs) == 1:
        return ""
    items = (
        f"<li>{sample(index)}{html.escape(visible(run.name, space=' '))}</li>"
        for index, run in enumerate(runs)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'
