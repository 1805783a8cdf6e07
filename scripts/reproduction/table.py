"""Finished cells as Markdown tables and as a figure: means and spreads over seeds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from reproduction.methods import BASELINE, KINDS, METHODS
from xtoken_jax.files import replaced_file
from xtoken_jax.report import read_metrics
from xtoken_jax.report.chart import thinned

Result = dict[str, Any]
_AFTER, _BEFORE = "student after", "student before"


def _agreement(model: Result) -> float | None:
    shares = [of["share"] for of in model.get("agreement", {}).values()]
    return shares[0] if shares else None


# Title, what it is of a model's evaluation, and how it is written.
_MEASURES: tuple[tuple[str, Callable[[Result], float | None], str], ...] = (
    ("bits per byte", lambda model: model["all"], ".3f"),
    ("of digits", lambda model: model["digits"], ".3f"),
    ("right answers", lambda model: model.get("exact_match"), ".1%"),
    ("agrees with teacher", _agreement, ".1%"),
)


def markdown(results: Sequence[Result]) -> str:
    """For each held-out source its tables; a setting that reads one source has no heading."""
    told = []
    for source, of_source in by_source(results).items():
        heading = [f"### {source}\n"] if source else []
        told += [*heading, _tables(of_source)]
    return "\n".join(told)


def by_source(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results by held-out source, each as if no other had been read; '' where there is one."""
    found: dict[str, list[Result]] = {}
    for result in results:
        models = result["models"]
        for source in models[_AFTER].get("sources", [""]):
            parts = {
                n: model["sources"][source] if source else model for n, model in models.items()
            }
            found.setdefault(source, []).append(result | {"models": parts})
    return found


def _tables(results: Sequence[Result]) -> str:
    """A table for each measure, methods in rows and settings in columns; then the paired gains."""
    found = dict.fromkeys(result["setting"] for result in results)
    settings = sorted(found, key=lambda setting: setting.startswith("narrow-"))
    of_settings = [[r for r in results if r["setting"] == setting] for setting in settings]
    tables = [f"Seeds: {', '.join(map(_seeds, of_settings))}, in the order of the columns.\n"]
    for title, read, form in _MEASURES:
        if any(read(model) is not None for r in results for model in r["models"].values()):
            tables.append(_table(title, settings, of_settings, partial(_cell, read, form)))
    for title, field in (("bits per byte", "all"), ("bits a digit byte", "digits")):
        if any(result["models"][_AFTER][field] is not None for result in results):
            title = f"fewer {title} than {METHODS[BASELINE].title}, by seed"
            tables.append(_table(title, settings, of_settings, partial(_gain, field)))
    return "\n".join(tables)


def _seeds(results: Sequence[Result]) -> str:
    numbers = [len(_of(method, results)) for method in METHODS]
    least, most = min(filter(None, numbers)), max(numbers)
    return str(most) if least == most else f"{least} to {most}"


def _table(
    title: str,
    settings: Sequence[str],
    of_settings: Sequence[Sequence[Result]],
    cell: Callable[[str, Sequence[Result]], str],
) -> str:
    lines = [f"| {title} | {' | '.join(settings)} |", f"|---|{'---:|' * len(settings)}"]
    for row in ("teacher", _BEFORE, *METHODS):
        cells = [cell(row, results) for results in of_settings]
        if any(cells):
            shown = METHODS[row].title if row in METHODS else row
            lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(
    read: Callable[[Result], float | None], form: str, row: str, results: Sequence[Result]
) -> str:
    """What a method reached, or, of the first cell, teacher and student before."""
    if row in METHODS:
        models = [result["models"][_AFTER] for result in _of(row, results)]
    else:
        first = results[0]["models"]
        models = [first[name] for name in first if name.startswith(row)]
    return mean_and_spread([read(model) for model in models], form) if models else ""


def _gain(field: str, row: str, results: Sequence[Result]) -> str:
    """What a method saves beside the baseline of the same seed."""
    gains = gains_by_seed(field, row, results)
    return mean_and_spread(gains, "+.3f") if gains and row != BASELINE else ""


def gains_by_seed(field: str, method: str, results: Sequence[Result]) -> list[float]:
    """By how much a field is lower than the baseline's, for each seed that both have."""
    baseline, found = (
        {r["seed"]: r["models"][_AFTER][field] for r in _of(name, results)}
        for name in (BASELINE, method)
    )
    return [
        baseline[seed] - value
        for seed, value in found.items()
        if value is not None and baseline.get(seed) is not None
    ]


def _of(method: str, results: Iterable[Result]) -> list[Result]:
    return [result for result in results if result["method"] == method]


def mean_and_spread(values: Iterable[float | None], form: str) -> str:
    """Mean and standard deviation over seeds; the mean alone of a single one, `-` of none."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    told = format(mean(known), form)
    if len(known) < 2:
        return told
    return f"{told} ± {format(stdev(known), form.removeprefix('+'))}"


def draw_answers(results: Sequence[Result], path: Path) -> None:
    """Draw right answers as bars, a column a setting; those of narrow sums are left out.

    Args:
        results: Of cells that have answered questions.
        path: Gets the picture.
    """

    def answers(method: str, of_setting: Sequence[Result]) -> list[float]:
        return [100 * r["models"][_AFTER]["exact_match"] for r in _of(method, of_setting)]

    def teacher(of_setting: Sequence[Result]) -> float:
        models = of_setting[0]["models"].items()
        return 100 * next(m["exact_match"] for name, m in models if name.startswith("teacher"))

    wide = [result for result in results if not result["setting"].startswith("narrow-")]
    axes = _Axes("right answers, %", "a dot a seed; dashed: the teacher", (0, 102), [*METHODS])
    _draw_bars(wide, answers, teacher, axes, path)


def draw_gains(results: Sequence[Result], source: str, path: Path) -> None:
    """Draw what the main methods save in digits of one held-out source, a column a setting.

    Args:
        results: Of cells that have read the source.
        source: Its title.
        path: Gets the picture.
    """
    of_source = by_source(results)[source]
    told = f"bits a digit byte saved beside {METHODS[BASELINE].title}"
    axes = _Axes(told, f"{source}; a dot a seed", None, [*KINDS[1:]])
    _draw_bars(of_source, partial(gains_by_seed, "digits"), lambda _: 0.0, axes, path)


@dataclass(frozen=True)
class _Axes:
    x_label: str
    title: str
    x_limits: tuple[float, float] | None
    methods: Sequence[str]


def _draw_bars(
    results: Sequence[Result],
    values_of: Callable[[str, Sequence[Result]], list[float]],
    line_of: Callable[[Sequence[Result]], float],
    axes: _Axes,
    path: Path,
) -> None:
    """A bar for a method's mean and a dot for each seed, beside a dashed line."""
    settings = [*dict.fromkeys(result["setting"] for result in results)]
    methods = [method for method in axes.methods if _of(method, results)]
    pyplot = _pyplot()
    figure, grid = pyplot.subplots(
        1,
        len(settings),
        figsize=(3.4 * len(settings), 1.2 + 0.22 * len(methods)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axis, setting in zip(grid[0], settings, strict=True):
        of_setting = [result for result in results if result["setting"] == setting]
        axis.axvline(line_of(of_setting), color="#999999", linestyle="--", linewidth=1)
        for method in reversed(methods):
            title, values = METHODS[method].title, values_of(method, of_setting)
            colour = "#999999" if method == BASELINE else "#4477aa"
            axis.barh(title, mean(values) if values else 0, color=colour)
            axis.plot(values, [title] * len(values), ".", color="black", markersize=4)
        axis.set_xlim(axes.x_limits)
        axis.set_title(setting, fontsize=9)
        axis.tick_params(labelsize=7)
    figure.suptitle(axes.title, fontsize=8)
    figure.supxlabel(axes.x_label, fontsize=8)
    figure.tight_layout()
    with replaced_file(path) as temporary:
        figure.savefig(temporary, dpi=150)
    pyplot.close(figure)


def draw_curves(part: Path, path: Path, *, seed: int = 0) -> None:
    """Draw cross-entropy over the steps, for one method of each kind, a column a setting.

    Args:
        part: With the run directories of a part's cells.
        path: Gets the picture.
        seed: Of the cells.
    """
    found = {run.parent.name for run in part.glob(f"*/*-seed{seed}")}
    settings = sorted(setting for setting in found if not setting.startswith("narrow-"))
    pyplot = _pyplot()
    size = (4.2 * len(settings), 3.4)
    figure, axes = pyplot.subplots(1, len(settings), figsize=size, squeeze=False)
    for axis, setting in zip(axes[0], settings, strict=True):
        for index, method in enumerate(KINDS):
            run = part / setting / f"{method}-seed{seed}"
            log = run / "metrics.jsonl"
            if not log.exists() or not log.stat().st_size:
                continue  # not begun, or before its first step
            points = [(r["step"], r["cross_entropy"]) for r in read_metrics(run)]
            # The first tenth, in which the form of the texts is learnt, would hide the rest.
            later = points[len(points) // 10 :]
            title = METHODS[method].title
            axis.plot(*thinned(later).T, label=title, color=f"C{index}", linewidth=1)
        axis.set_title(f"{part.name.partition('-')[0]}, {setting}", fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0, 0].set_ylabel("cross-entropy of the batch, nats per token", fontsize=8)
    axes[0, -1].legend(fontsize=7)
    figure.tight_layout()
    with replaced_file(path) as temporary:
        figure.savefig(temporary, dpi=150)
    pyplot.close(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
