"""The training loop: step, read the step before, save, stop when asked."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from xtoken_jax.config import ExperimentConfig
from xtoken_jax.data import Batch
from xtoken_jax.errors import XTokenError
from xtoken_jax.train.checkpoints import Checkpoints
from xtoken_jax.train.loss import Metrics
from xtoken_jax.train.metrics import MetricsLog
from xtoken_jax.train.optimiser import learning_rate_schedule
from xtoken_jax.train.progress import Progress
from xtoken_jax.train.signals import StopRequest
from xtoken_jax.train.step import TrainState

# Of a teacher's probability: with more out of W's reach, `mask` taught worse than no teacher at all
# in docs/results.md, where it was 0.3; Llama-3 has 0.0003 of SmolLM2 out of reach.
_MUCH_UNREACHABLE = 0.05


@dataclass(frozen=True)
class _Pending:
    """A step that the devices may still be computing."""

    number: int
    batch: Batch
    metrics: dict[str, jax.Array]
    data_state: dict[str, Any]
    data_seconds: float


def run_steps(
    config: ExperimentConfig,
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    state: TrainState,
    batches: Any,
    checkpoints: Checkpoints,
    *,
    run_dir: Path,
) -> tuple[TrainState, str | None]:
    """Step until the last step or a signal; metrics are read one step late.

    Args:
        config: The experiment.
        step: From a state and a batch to the next state and metrics; returns before the devices
            are done.
        state: Where to begin.
        batches: Iterator of batches with `get_state`.
        checkpoints: Where to save every so often, at the end, and on SIGINT or SIGTERM.
        run_dir: Gets metrics.jsonl.

    Returns:
        The last state, and the name of the signal that ended the run early or None.

    Raises:
        XTokenError: a loss or a gradient is not finite; the state from before it is saved.
    """
    first, last = int(state.step) + 1, config.optim.steps
    pending: _Pending | None = None
    stopped_by: str | None = None
    with (
        StopRequest() as stop,
        Progress(total=last, step=first - 1) as progress,
        MetricsLog(run_dir / "metrics.jsonl", step=first - 1) as log,
    ):
        reader = _Reader(config, checkpoints, log, progress, skipped=int(state.skipped))
        for number in range(first, last + 1):
            data_state = batches.get_state()
            started = time.perf_counter()
            batch = next(batches)
            data_seconds = time.perf_counter() - started
            asked = stop.ask()
            state, metrics = step(state, batch)
            if pending is not None:
                reader.read(pending, state)
            stopped_by = asked()
            pending = _Pending(number, batch, metrics, data_state, data_seconds)
            save_now = number % config.checkpoint.every_steps == 0 or number == last
            if save_now or stopped_by:
                reader.read(pending, state)
                pending = None
                checkpoints.save(state, batches.get_state())
            if stopped_by:
                break
    return state, stopped_by if int(state.step) < last else None


class _Reader:
    """Waits for a step's metrics and passes them on."""

    def __init__(
        self,
        config: ExperimentConfig,
        checkpoints: Checkpoints,
        log: MetricsLog,
        progress: Progress,
        *,
        skipped: int,
    ) -> None:
        self._schedule = learning_rate_schedule(config.optim)
        self._checkpoints = checkpoints
        self._log = log
        self._progress = progress
        self._last_read = time.perf_counter()
        self._skipped = skipped
        self._may_skip = config.optim.max_skipped_steps
        self._masked = [n for n, t in config.teaching.items() if t.loss.unreachable == "mask"]

    def read(self, done: _Pending, state: TrainState) -> None:
        """Log a step, or stop the run if it went wrong."""
        values = {name: float(value) for name, value in done.metrics.items()}
        if not values.pop("healthy"):
            # The state is still the one from before the step: see `make_step`.
            self._checkpoints.save(state, done.data_state)
            self._checkpoints.close()
            raise XTokenError(self._too_many(done, values))
        before, self._skipped = self._skipped, int(values.pop("skipped"))
        if self._skipped > before:
            self._log.write({"step": done.number, "skipped": done.batch.records})
            self._progress.say(f"{self._skip(done, values)} ({self._skipped} of {self._may_skip})")
            return
        for advice in self._advice(values):
            self._progress.say(advice)
        now = time.perf_counter()
        speed = done.batch.num_tokens / (now - self._last_read)
        self._last_read = now
        rate = self._schedule(done.number - 1 - self._skipped)
        values |= {
            "learning_rate": float(jax.device_get(rate)),
            "utilisation": done.batch.num_tokens / done.batch.target_mask_BS.size,
            "tokens_per_second": speed,
            "data_seconds": done.data_seconds,
        }
        self._log.write({"step": done.number, **values})
        self._progress.update(done.number, loss=values["cross_entropy"], tokens_per_second=speed)

    def _advice(self, values: dict[str, float]) -> Iterator[str]:
        """What the first step tells of teachers of whom P-KL leaves out much; once for each."""
        masked, self._masked = self._masked, []
        for name in masked:
            share = values.get(f"{name}/unreachable", 0.0)
            if share > _MUCH_UNREACHABLE:
                yield (
                    f"W cannot reach {share:.0%} of what teacher {name} expects, and P-KL leaves "
                    f"it out; `teachers.{name}.loss.unreachable` fold would count it"
                )

    def _skip(self, done: _Pending, values: dict[str, float]) -> str:
        return f"step {done.number} skipped: {_found(values)}; records: {_records(done)}"

    def _too_many(self, done: _Pending, values: dict[str, float]) -> str:
        skipped = f" after {self._skipped} skipped steps" if self._skipped else ""
        return (
            f"step {done.number} must have a finite loss and gradient, got {_found(values)}"
            f"{skipped}; records: {_records(done)}; the state from before it is in "
            f"{self._checkpoints.directory}; an `optim.max_skipped_steps` above {self._may_skip} "
            "leaves it out"
        )


def _found(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {values[name]}" for name in ("loss", "gradient_norm"))


def _records(done: _Pending) -> str:
    return ", ".join(done.batch.records)
