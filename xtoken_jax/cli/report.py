"""`xtoken report`."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from xtoken_jax.cli.output import OUT
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.files import replaced_file
from xtoken_jax.text import ByteTokenizer

if TYPE_CHECKING:
    from xtoken_jax.report.run_page import Audit
    from xtoken_jax.report.runs import Run


@dataclass(frozen=True)
class Report:
    """Print a run's table and draw its curves again, or write a page of several runs."""

    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """Directories of runs."""
    html: Path | None = None
    """Write one page that opens without a network, with the runs side by side, and nothing else."""

    def __call__(self) -> None:
        """Print and draw, or write the page."""
        if not self.run_dirs:
            raise UsageError("`xtoken report` needs the directory of a run")
        if self.html is not None:
            _write_page(self.html, self.run_dirs)
            return
        from xtoken_jax.report import evaluation_table, plot_curves, read_evaluation

        for run_dir in self.run_dirs:
            path = plot_curves(run_dir)
            OUT.print(evaluation_table(read_evaluation(run_dir)))
            OUT.print(f"curves: {path}")


def _write_page(path: Path, run_dirs: Sequence[Path]) -> None:
    from xtoken_jax.report import read_runs, run_page

    runs = read_runs(run_dirs)
    names = ", ".join(run.name for run in runs)
    title = f"Run {names}" if len(runs) == 1 else f"Runs {names}"
    with replaced_file(path) as temporary:
        temporary.write_text(run_page(runs, _audits(runs), title=title), encoding="utf-8")
    OUT.print(f"page: {path}", soft_wrap=True)


def _audits(runs: Sequence["Run"]) -> dict[str, dict[str, "Audit"]]:
    """Of the Ws of each run by teacher: the record, or a line that says why there is none."""
    load = functools.cache(ByteTokenizer.load)  # runs that are compared share their tokenizers
    return {
        run.name: {
            teacher: _audit(run.directory, teacher, load)
            for teacher in run.teachers
            if run.settings.get(f"teachers.{teacher}.loss.kind") != "none"
        }
        for run in runs
    }


def _audit(run_dir: Path, teacher: str, load: Callable[[str], ByteTokenizer]) -> "Audit":
    from xtoken_jax.config import load_config
    from xtoken_jax.projection import audit, load_projection
    from xtoken_jax.train.setup import tokenizer_references

    try:
        config = load_config(run_dir / "config.yaml")
        student, teachers = tokenizer_references(config)
        sides = load(student), load(teachers[teacher])
        path = run_dir / "projections" / f"{teacher}.safetensors"
        projection = load_projection(path, student=sides[0], teacher=sides[1])
        return audit(*sides, projection, threshold=config.teachers[teacher].loss.threshold)
    except (XTokenError, OSError) as error:
        return f"There is no audit: {error}"
