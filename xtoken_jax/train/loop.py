"""A distillation run, from config to exported student, in the order in which it happens."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import yaml
from flax import nnx
from rich.console import Console

from xtoken_jax.config import ExperimentConfig, to_dict
from xtoken_jax.data import Batch, batch_dataset
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.evaluate import BitsPerByte, bits_per_byte
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.sharding import batch_sharding
from xtoken_jax.models.weights import save_model
from xtoken_jax.text import ByteTokenizer
from xtoken_jax.train import setup
from xtoken_jax.train.checkpoints import Checkpoints
from xtoken_jax.train.mesh import make_mesh
from xtoken_jax.train.metrics import MetricsLog, write_text
from xtoken_jax.train.optimiser import learning_rate_schedule, make_optimiser
from xtoken_jax.train.progress import Progress
from xtoken_jax.train.signals import StopRequest
from xtoken_jax.train.step import TrainState, init_state, make_step, put_batch

_CONSOLE = Console(stderr=True)


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Attributes:
        run_dir: With metrics.jsonl, evaluation.json, checkpoints and the exported student.
        step: Updates made.
        stopped_by: Name of the signal that stopped it early, None for a finished run.
    """

    run_dir: Path
    step: int
    stopped_by: str | None


def train(config: ExperimentConfig, *, resume: bool = False) -> RunResult:
    """Train, evaluate and export; goes on from the last checkpoint where there is one.

    Args:
        config: The experiment.
        resume: There must be a checkpoint to go on from.

    Raises:
        UsageError: the config asks for what is not there.
        XTokenError: the run cannot go on; what was saved stays.
    """
    run_dir = Path(config.run_dir)
    checkpoints = Checkpoints(run_dir / "checkpoints", config.checkpoint)
    if resume and checkpoints.latest_step is None:
        raise UsageError(f"--resume needs a checkpoint, but {checkpoints.directory} has none")
    mesh = make_mesh(data=config.mesh.data, fsdp=config.mesh.fsdp, tensor=config.mesh.tensor)
    with jax.set_mesh(mesh):
        tokenizers = setup.load_tokenizers(config)
        examples = setup.load_examples(config, tokenizers)
        student = setup.load_student(config, run_dir, tokenizers.student, mesh)
        teacher, projection = None, None
        if config.loss.distillation != "none":
            teacher = setup.load_teacher(config, tokenizers.teacher, mesh)
            projection = setup.load_device_projection(
                config,
                run_dir,
                tokenizers,
                student_vocab_size=student.unembedding_VD.shape[0],
                teacher_vocab_size=teacher.unembedding_VD.shape[0],
            )
        evaluation = _Evaluation(config, run_dir, setup.heldout_texts(config, tokenizers))
        if checkpoints.latest_step is None:
            write_text(run_dir / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))
            evaluation.run("student before", student, tokenizers.student)
            if teacher is not None:
                evaluation.run("teacher", teacher, tokenizers.teacher)

        graph, params = nnx.split(student)
        optimiser = make_optimiser(config.optim)
        state = init_state(params, optimiser, mesh)
        del student, params  # their buffers now belong to the state
        dataset = batch_dataset(
            examples,
            batch_size=config.data.batch_size,
            student_length=config.data.student_length,
            teacher_length=config.data.teacher_length,
            seed=config.seed,
        )
        batches = iter(dataset)
        if checkpoints.latest_step is not None:
            state, data_state = checkpoints.restore(state, config)
            batches.set_state(data_state)
            _CONSOLE.print(f"going on from step {int(state.step)}")

        teacher_graph, teacher_params = (None, None) if teacher is None else nnx.split(teacher)
        step = make_step(
            graph,
            teacher_graph,
            optimiser,
            config.loss,
            num_tokens=tokenizers.student.num_tokens,
            shardings=jax.tree.map(lambda x: x.sharding, state),
        )
        state, stopped_by = _loop(
            config,
            lambda state, batch: step(
                state, teacher_params, projection, put_batch(batch, batch_sharding(mesh))
            ),
            state,
            batches,
            checkpoints,
            run_dir,
        )
        checkpoints.close()
        if stopped_by is None:
            student = nnx.merge(graph, state.params)
            evaluation.run("student after", student, tokenizers.student)
            save_model(student, run_dir / "student", tokenizer_dir=tokenizers.student_directory)
    return RunResult(run_dir, int(state.step), stopped_by)


@dataclass(frozen=True)
class _Pending:
    """A step whose metrics are still being computed."""

    number: int
    batch: Batch
    metrics: dict[str, jax.Array]
    data_state: dict[str, Any]
    started: float


def _loop(
    config: ExperimentConfig,
    step: Any,
    state: TrainState,
    batches: Any,
    checkpoints: Checkpoints,
    run_dir: Path,
) -> tuple[TrainState, str | None]:
    """Step until the end or a signal. Metrics are read one step late, so the device never waits."""
    first, last = int(state.step) + 1, config.optim.steps
    log = MetricsLog(run_dir / "metrics.jsonl", step=first - 1)
    schedule = learning_rate_schedule(config.optim)
    pending: _Pending | None = None
    with StopRequest() as stop, Progress(total=last, step=first - 1) as progress:

        def read(done: _Pending) -> None:
            values = {name: float(value) for name, value in done.metrics.items()}
            seconds = time.perf_counter() - done.started
            if not values.pop("healthy"):
                # The state is still the one from before the step: see `make_step`.
                checkpoints.save(state, done.data_state, config)
                checkpoints.close()
                raise XTokenError(_unhealthy(done, values, checkpoints))
            values |= {
                "learning_rate": float(schedule(done.number - 1)),
                "tokens_per_second": done.batch.num_tokens / seconds,
            }
            log.write({"step": done.number, **values})
            progress.update(
                done.number,
                loss=values["cross_entropy"],
                tokens_per_second=values["tokens_per_second"],
            )

        for number in range(first, last + 1):
            started, data_state = time.perf_counter(), batches.get_state()
            batch = next(batches)
            state, metrics = step(state, batch)
            if pending is not None:
                read(pending)
            pending = _Pending(number, batch, metrics, data_state, started)
            save_now = number % config.checkpoint.every_steps == 0 or number == last
            if save_now or stop.requested:
                read(pending)
                pending = None
                checkpoints.save(state, batches.get_state(), config)
            if stop.requested:
                break
        log.close()
        return state, stop.requested if int(state.step) < last else None


def _unhealthy(done: _Pending, values: dict[str, float], checkpoints: Checkpoints) -> str:
    found = ", ".join(f"{name} {values[name]}" for name in ("loss", "gradient_norm"))
    return (
        f"step {done.number} must have a finite loss and gradient, got {found}; "
        f"records: {', '.join(done.batch.records)}; "
        f"the state from before it is in {checkpoints.directory}"
    )


class _Evaluation:
    """evaluation.json: what has been evaluated so far, by name."""

    def __init__(self, config: ExperimentConfig, run_dir: Path, texts: list[str]) -> None:
        self._config = config
        self._path = run_dir / "evaluation.json"
        self._texts = texts

    def run(self, name: str, model: Decoder, tokenizer: ByteTokenizer) -> None:
        """Evaluate and add to the file."""
        if not self._texts:
            return
        result: BitsPerByte = bits_per_byte(
            model,
            tokenizer,
            self._texts,
            batch_size=self._config.evaluation.batch_size,
            length=self._config.evaluation.length,
            block_tokens=self._config.loss.block_tokens,
        )
        results = json.loads(self._path.read_text()) if self._path.exists() else {}
        results[name] = result.to_dict()
        write_text(self._path, json.dumps(results, indent=1))
        _CONSOLE.print(f"{name}: {result.all:.3f} bits per byte", highlight=False)
