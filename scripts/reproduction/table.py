"""Finished cells as Markdown tables and as a figure: means and spreads over seeds."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from reproduction.methods import BASELINE, METHODS
from xtoken_jax.files import replaced_file

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
    """A table for each setting; methods in the order of `METHODS`."""
    settings = dict.fromkeys(result["setting"] for result in results)
    return "\n".join(
        _setting(name, [r for r in results if r["setting"] == name]) for name in settings
    )


def _setting(name: str, results: Sequence[Result]) -> str:
    titles = [title for title, _, _ in _MEASURES]
    lines = [
        f"### {name}\n",
        f"| | seeds | {' | '.join(titles)} | less bits than {METHODS[BASELINE].title} |",
        f"|---|---:|{'---:|' * len(titles)}---:|",
    ]
    baseline = {r["seed"]: r["models"][_AFTER]["all"] for r in _of(BASELINE, results)}
    first = results[0]["models"]
    teacher = next(model for model in first if model.startswith("teacher "))
    for title, model in (("teacher", teacher), ("student before", _BEFORE)):
        lines.append(_row(title, [r["models"][model] for r in results], 0, ""))
    for method, about in METHODS.items():
        if not (of_method := _of(method, results)):
            continue
        models = [result["models"][_AFTER] for result in of_method]
        gains = [
            baseline[result["seed"]] - result["models"][_AFTER]["all"]
            for result in of_method
            if result["seed"] in baseline
        ]
        gain = "" if method == BASELINE else mean_and_spread(gains, "+.3f")
        lines.append(_row(about.title, models, len(models), gain))
    return "\n".join(lines) + "\n"


def _of(method: str, results: Iterable[Result]) -> list[Result]:
    return [result for result in results if result["method"] == method]


def _row(title: str, models: Sequence[Result], num_seeds: int, gain: str) -> str:
    cells = [
        mean_and_spread([read(model) for model in models], form, spread=num_seeds > 0)
        for _, read, form in _MEASURES
    ]
    return f"| {title} | {num_seeds or ''} | {' | '.join(cells)} | {gain} |"


def mean_and_spread(values: Iterable[float | None], form: str, *, spread: bool = True) -> str:
    """Mean and standard deviation over seeds; the mean alone of a single one, `-` of none."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    told = format(mean(known), form)
    if not spread or len(known) < 2:
        return told
    return f"{told} ± {format(stdev(known), form.removeprefix('+'))}"


def draw(parts: dict[str, Sequence[Result]], path: Path) -> None:
    """Draw right answers and bits per byte of every method as bars, a column a setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = [
        (part, s) for part, rows in parts.items() for s in dict.fromkeys(r["setting"] for r in rows)
    ]
    figure, axes = pyplot.subplots(
        1, len(settings), figsize=(3.4 * len(settings), 4.2), sharey=True, squeeze=False
    )
    for axis, (part, setting) in zip(axes[0], settings, strict=True):
        results = [r for r in parts[part] if r["setting"] == setting]
        title, read, _ = _MEASURES[2 if part.startswith("scratch") else 0]
        bars = {
            about.title: [read(r["models"][_AFTER]) for r in _of(method, results)]
            for method, about in METHODS.items()
        }
        names = list(bars)[::-1]
        known = [[v for v in bars[name] if v is not None] for name in names]
        axis.barh(names, [mean(v) if v else 0 for v in known], color="#4477aa")
        for height, values in enumerate(known):
            axis.plot(values, [height] * len(values), ".", color="black", markersize=4)
        axis.set_title(f"{part.partition('-')[0]}, {setting}", fontsize=9)
        axis.set_xlabel(title, fontsize=8)
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    with replaced_file(path) as temporary:
        figure.savefig(temporary, dpi=150)
    pyplot.close(figure)
