"""What a run logged, as records and as curves."""

import json
from pathlib import Path
from typing import Any

from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.files import replaced_file

# Colours that stay apart for the colour-blind (Okabe and Ito), with different dashes as well.
_CURVES = (
    ("cross_entropy", "cross-entropy", "#0072B2", "-"),
    ("distillation", "distillation", "#D55E00", "--"),
)
_DASHES = ("-", "--", ":", "-.")


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, by step, of the steps that were not skipped.

    A last line that a kill cut short is left out.

    Raises:
        UsageError: there is no such directory.
        XTokenError: it has no metrics.jsonl, there is no step in it, or another line is not a step.
    """
    if not run_dir.is_dir():
        raise UsageError(f"`run_dir` {run_dir} does not exist")
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        raise XTokenError(f"{run_dir} must be the directory of a run, but has no metrics.jsonl")
    lines = path.read_text().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_record(line))
        except ValueError as error:
            if number < len(lines):
                raise XTokenError(
                    f"{path}:{number}: must be a step in JSON, got: {error}"
                ) from error
    records = [record for record in records if "skipped" not in record]
    if not records:
        raise XTokenError(f"{path} must hold at least one step, but is empty")
    return records


def _record(line: str) -> dict[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict) or "step" not in record:
        raise ValueError(f"no `step` in {line:.60}")
    return record


def read_evaluation(run_dir: Path) -> dict[str, dict[str, float | None]]:
    """The results of evaluation.json by name; empty where nothing was evaluated."""
    path = run_dir / "evaluation.json"
    return json.loads(path.read_text()) if path.exists() else {}


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
    for index, field in enumerate(f for f in records[0] if f.endswith("/agreement")):
        label, dash = field.removesuffix("/agreement"), _DASHES[index % len(_DASHES)]
        agreement.plot(steps, [r[field] for r in records], dash, color="#009E73", label=label)
        agreement.legend()
    agreement.set(xlabel="step", ylabel="share of chunks", title="top-1 agreement with teacher")
    rate.plot(steps, [r["learning_rate"] for r in records], color="#555555")
    rate.set(xlabel="step", title="learning rate")
    path = run_dir / "curves.png"
    with replaced_file(path) as temporary:
        figure.savefig(temporary, dpi=130)
    return path
