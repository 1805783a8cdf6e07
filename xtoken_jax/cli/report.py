"""`xtoken report`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from xtoken_jax.cli.output import OUT


@dataclass(frozen=True)
class Report:
    """Print a run's table and draw its curves again."""

    run_dir: tyro.conf.Positional[Path]
    """Directory of the run."""

    def __call__(self) -> None:
        """Print and draw."""
        from xtoken_jax.report import evaluation_table, plot_curves, read_evaluation

        path = plot_curves(self.run_dir)
        OUT.print(evaluation_table(read_evaluation(self.run_dir)))
        OUT.print(f"curves: {path}")
