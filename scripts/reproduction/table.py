"""Finished cells as Markdown tables and as a figure: means and spreads over seeds."""

from collections.abc import Callable, Iterable, Sequence
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
    """A table for each measure, methods in rows and settings in columns; then the paired gains."""
    found = dict.fromkeys(result["setting"] for result in results)
    settings = sorted(found, key=lambda setting: setting.startswith("narrow-"))
    of_settings = [[r for r in results if r["setting"] == setting] for setting in settings]
    tables = [f"Seeds: {', '.join(map(_seeds, of_settings))}, in the order of the columns.\n"]
    for title, read, form in _MEASURES:
        if any(read(model) is not None for r in results for model in r["models"].values()):
            tables.append(_table(title, settings, of_settings, partial(_cell, read, form)))
    title = f"fewer bits per byte than {METHODS[BASELINE].title}, by seed"
    return "\n".join([*tables, _table(title, settings, of_settings, _gain)])


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


def _gain(row: str, results: Sequence[Result]) -> str:
    """What a method saves beside the baseline of the same seed."""
    baseline = {r["seed"]: r["models"][_AFTER]["all"] for r in _of(BASELINE, results)}
    gains = [
        baseline[result["seed"]] - result["models"][_AFTER]["all"]
        for result in _of(row, results)
        if result["seed"] in baseline
    ]
    return mean_and_spread(gains, "+.3f") if gains and row != BASELINE else ""


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


def draw(results: Sequence[Result], path: Path) -> None:
    """Draw right answers as bars, a column a setting; those of narrow sums are left out.

    Args:
        results: Of cells that have answered questions.
        path: Gets the picture.
    """
    found = dict.fromkeys(result["setting"] for result in results)
    settings = [setting for setting in found if not setting.startswith("narrow-")]
    pyplot = _pyplot()
    size = (3.4 * len(settings), 4.4)
    figure, axes = pyplot.subplots(1, len(settings), figsize=size, sharey=True, squeeze=False)
    for axis, setting in zip(axes[0], settings, strict=True):
        of_setting = [result for result in results if result["setting"] == setting]
        teacher = next(m for n, m in of_setting[0]["models"].items() if n.startswith("teacher"))
        axis.axvline(100 * teacher["exact_match"], color="#999999", linestyle="--", linewidth=1)
        for method, about in reversed(METHODS.items()):
            answers = [100 * r["models"][_AFTER]["exact_match"] for r in _of(method, of_setting)]
            colour = "#999999" if method == BASELINE else "#4477aa"
            axis.barh(about.title, mean(answers) if answers else 0, color=colour)
            axis.plot(answers, [about.title] * len(answers), ".", color="black", markersize=4)
        axis.set_xlim(0, 102)
        axis.set_title(setting, fontsize=9)
        axis.set_xlabel("right answers, %", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.suptitle("a dot a seed; dashed: the teacher", fontsize=8)
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
