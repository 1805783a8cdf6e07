"""What run directories hold, as far as it can be read."""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from xtoken_jax.config import flat
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.report.curves import read_evaluation, read_metrics

# The files of a run that are read, and how it comes to have them.
_FILES = {
    "config.yaml": "a run writes it before its first step",
    "metrics.jsonl": "a run adds a line to it at every step",
    "evaluation.json": "a run with `evaluation.sources` writes it",
    "samples.jsonl": "a run writes what its models answer to the word problems among its "
    "`evaluation.sources`, if `evaluation.max_questions` is above 0",
}

_Content = TypeVar("_Content")


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        name: Tells it from other runs.
        directory: As it was given.
        settings: Of config.yaml, by field, such as `optim.steps`.
        metrics: The records of metrics.jsonl, by step, without those of skipped steps.
        results: Of evaluation.json, by model.
        samples: Of samples.jsonl: `prompt` and `text`; mostly `model`, `answer` and `is_right` too.
        notes: By file that is not there or cannot be read, what is to be said of it.
    """

    name: str
    directory: Path
    settings: dict[str, Any]
    metrics: list[dict[str, Any]]
    results: dict[str, dict[str, Any]]
    samples: list[dict[str, Any]]
    notes: dict[str, str]

    @property
    def teachers(self) -> list[str]:
        """Names of the teachers in the settings."""
        begin, end = "teachers.", ".model"
        fields = (f for f in self.settings if f.startswith(begin) and f.endswith(end))
        return [field.removeprefix(begin).removesuffix(end) for field in fields]

    def points(self, metric: str) -> list[tuple[float, float]]:
        """Steps and values of a metric, where it is a finite number."""
        found = ((record["step"], record.get(metric)) for record in self.metrics)
        return [
            (step, value)
            for step, value in found
            if isinstance(value, int | float) and math.isfinite(value)
        ]


def read_runs(directories: Sequence[Path]) -> list[Run]:
    """Read them, each once; what is missing or damaged is a note of its run.

    Raises:
        UsageError: there is no such directory.
        XTokenError: it holds nothing of a run.
    """
    by_place: dict[Path, Path] = {}
    for directory in directories:
        by_place.setdefault(directory.resolve(), directory)
    counts = Counter(place.name for place in by_place)
    return [
        _read(directory, name=place.name if counts[place.name] == 1 else str(directory))
        for place, directory in by_place.items()
    ]


def _read(directory: Path, *, name: str) -> Run:
    if not directory.exists():
        raise UsageError(f"`run_dir` {directory} does not exist")
    if not any((directory / file).is_file() for file in _FILES):
        files = ", ".join(_FILES)
        raise XTokenError(f"{directory} must be the directory of a run, but has none of {files}")
    notes: dict[str, str] = {}

    def content(file: str, reader: Callable[[Path], _Content], otherwise: _Content) -> _Content:
        if not (directory / file).is_file():
            notes[file] = f"is not there; {_FILES[file]}"
            return otherwise
        try:
            return reader(directory)
        except (XTokenError, ValueError, OSError, yaml.YAMLError) as error:
            notes[file] = f"cannot be read: {' '.join(str(error).split())}"
            return otherwise

    return Run(
        name,
        directory,
        settings=content("config.yaml", _settings, {}),
        metrics=content("metrics.jsonl", read_metrics, []),
        results=content("evaluation.json", _results, {}),
        samples=content("samples.jsonl", _samples, []),
        notes=notes,
    )


def _settings(run_dir: Path) -> dict[str, Any]:
    content = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"it must be a mapping of fields, got {content!r:.60}")
    return flat(content)


def _results(run_dir: Path) -> dict[str, dict[str, Any]]:
    results = read_evaluation(run_dir)
    if not isinstance(results, dict):
        raise ValueError(f"it must hold results by model, got {results!r:.60}")
    for name, result in results.items():
        _check(result, ("all", "digits"), where=name)
    return results


def _samples(run_dir: Path) -> list[dict[str, Any]]:
    # Not `splitlines`, which would cut at characters such as U+2028 that JSON leaves as they are.
    with (run_dir / "samples.jsonl").open(encoding="utf-8") as file:
        samples = [json.loads(line) for line in file]
    for number, sample in enumerate(samples, start=1):
        _check(sample, ("prompt", "text"), where=f"line {number}")
    return samples


def _check(content: Any, fields: Sequence[str], *, where: str) -> None:
    if not isinstance(content, dict) or not content.keys() >= set(fields):
        names = " and ".join(f"`{field}`" for field in fields)
        raise ValueError(f"{where} must have {names}, got {content!r:.60}")
