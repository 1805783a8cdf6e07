"""What a run did, as a table and as curves."""

import json
import math
from pathlib import Path
from typing import Any

from rich.table import Table

from xtoken_jax.errors import XTokenError

# Colours that stay apart for the colour-blind (Okabe and Ito), with different dashes as well.
_CURVES = (
    ("cross_entropy", "cross-entropy", "#0072B2", "-"),
    ("distillation", "P-KL", "#D55E00", "--"),
)


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, by step.

    Raises:
        XTokenError: there is no such file, or it is empty.
    """
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    if not lines:
        raise XTokenError(f"{run_dir} must be the directory of a run, but has no metrics.jsonl")
    return [json.loads(line) for line in lines]


def read_evaluation(run_dir: Path) -> dict[str, dict[str, float]]:
    """The results of evaluation.json by name, empty where nothing was evaluated."""
    path = run_dir / "evaluation.json"
    return json.loads(path.read_text()) if path.exists() else {}


def evaluation_table(results: dict[str, dict[str, float]]) -> Table:
    """Held-out bits per byte, and the student's change."""
    table = Table(title="held-out bits per byte")
    table.add_column("model")
    for name in ("all bytes", "digit bytes"):
        table.add_column(name, justify="right")
    for name, result in results.items():
        table.add_row(name, *(_number(result[field]) for field in ("all", "digits")))
    if {"student before", "student after"} <= results.keys():
        before, after = results["student before"], results["student after"]
        changes = [after[field] / before[field] - 1 for field in ("all", "digits")]
        table.add_row("student's change", *(f"{change:+.1%}" for change in changes))
    return table


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def plot_curves(run_dir: Path) -> Path:
    """Draw losses, agreement and learning rate over the steps into `run_dir/curves.png`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_metrics(run_dir)
    steps = [record["step"] for record in records]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    losses, agreement, rate = figure.subplots(1, 3)
    for field, label, colour, dash in _CURVES:
        if field in records[0]:
            losses.plot(steps, [r[field] for r in records], dash, color=colour, label=label)
    losses.set(xlabel="step", ylabel="nats per token or chunk", title="losses")
    losses.legend()
    if "agreement" in records[0]:
        agreement.plot(steps, [r["agreement"] for r in records], color="#009E73")
    agreement.set(xlabel="step", ylabel="share of chunks", title="top-1 agreement with teacher")
    rate.plot(steps, [r["learning_rate"] for r in records], color="#555555")
    rate.set(xlabel="step", title="learning rate")
    path = run_dir / "curves.png"
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=130)
    temporary.replace(path)
    return path
