"""Cells of the experiment: one run of one method in one setting with one seed."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from xtoken_jax.config import check_config
from xtoken_jax.files import replaced_file
from xtoken_jax.train.run import train

# A finished cell keeps what tables and `xtoken report` read; a model with its state may take 2 GB.
_REMOVED = ("checkpoints", "student", "student_init")


@dataclass(frozen=True)
class Cell:
    """What is trained.

    Attributes:
        setting: A column of the tables.
        method: A row.
        seed: Of texts, student and order.
        config: Makes what the cell needs, such as its teacher, and returns its config without
            `run_dir`; called where the cell is run.
    """

    setting: str
    method: str
    seed: int
    config: Callable[[], Mapping[str, Any]]

    @property
    def name(self) -> str:
        """Of its directory, and what `--only` is matched with."""
        return f"{self.setting}/{self.method}"

    @property
    def key(self) -> tuple[str, str, int]:
        """Names it among the finished cells."""
        return self.setting, self.method, self.seed


def read_results(path: Path) -> list[dict[str, Any]]:
    """The finished cells of a file, one a line; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def run_cells(cells: Iterable[Cell], directory: Path, results_path: Path) -> None:
    """Run the cells that `results_path` does not have, and add each when it ends.

    A cell that was stopped goes on from its last checkpoint.

    Args:
        cells: In the order in which they are wanted.
        directory: Gets a run directory for each cell.
        results_path: JSONL; each line has setting, method, seed and what was measured.
    """
    done = {(r["setting"], r["method"], r["seed"]) for r in read_results(results_path)}
    for cell in cells:
        if cell.key in done:
            continue
        print(f"== {cell.name}, seed {cell.seed}", flush=True)
        named = {"setting": cell.setting, "method": cell.method, "seed": cell.seed}
        result = named | _run(cell, directory)
        done.add(cell.key)
        lines = [json.dumps(each) for each in (*read_results(results_path), result)]
        with replaced_file(results_path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines))


def _run(cell: Cell, directory: Path) -> dict[str, Any]:
    """What the models of the run say of the held-out texts, by model."""
    run_dir = directory / f"{cell.name}-seed{cell.seed}"
    config = cell.config()  # its teacher's time is not the cell's
    started = time.monotonic()
    _train(config, run_dir, name=cell.name)
    for name in _REMOVED:
        shutil.rmtree(run_dir / name, ignore_errors=True)
    models = json.loads((run_dir / "evaluation.json").read_text())
    return {"seconds": round(time.monotonic() - started, 1), "models": models}


def trained_model(config: Mapping[str, Any], directory: Path) -> Path:
    """The exported model of a training run, which is run unless it is there."""
    model = directory / "student"
    if not (model / "config.json").is_file():
        print(f"== {directory.name}", flush=True)
        _train(config, directory, name=directory.name)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return model


def _train(config: Mapping[str, Any], run_dir: Path, *, name: str) -> None:
    """Train, or end the script where a signal asked for it."""
    checked = check_config({**config, "run_dir": str(run_dir)}, name=name)
    stopped_by = train(checked).stopped_by
    if stopped_by is not None:
        raise SystemExit(f"{stopped_by}: the same command goes on from there")
    # A run has programs of its own; those of all cells together would fill the memory.
    jax.clear_caches()
