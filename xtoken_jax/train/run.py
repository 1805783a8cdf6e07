"""A distillation run, from config to exported student, in the order in which it happens."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import yaml
from flax import nnx
from jax.sharding import Mesh

from xtoken_jax.config import ExperimentConfig, to_dict
from xtoken_jax.data import Batch, RowSource, row_batches
from xtoken_jax.errors import UsageError
from xtoken_jax.losses import Tables
from xtoken_jax.models.lora import merge_adapters
from xtoken_jax.models.weights import save_model
from xtoken_jax.ops import row_softmax, to_host
from xtoken_jax.processes import gathered, is_first, say
from xtoken_jax.projection import save_projection
from xtoken_jax.train import setup
from xtoken_jax.train.checkpoints import Checkpoints
from xtoken_jax.train.data import mixture_weights
from xtoken_jax.train.evaluation import Evaluation
from xtoken_jax.train.lock import locked
from xtoken_jax.train.loop import run_steps
from xtoken_jax.train.loss import Metrics
from xtoken_jax.train.memory import memory_advice
from xtoken_jax.train.mesh import check_models, host_part, make_mesh, replicated
from xtoken_jax.train.metrics import write_text
from xtoken_jax.train.optimiser import make_optimiser
from xtoken_jax.train.step import (
    Frozen,
    Trained,
    TrainState,
    init_state,
    make_step,
    put_batch,
)


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
    with locked(Path(config.run_dir)), memory_advice(config):
        return _train(config, resume=resume)


def _train(config: ExperimentConfig, *, resume: bool) -> RunResult:
    run_dir = Path(config.run_dir)
    checkpoints = Checkpoints(run_dir / "checkpoints", config)
    resuming = checkpoints.latest_step is not None
    if resume and not resuming:
        raise UsageError(f"--resume needs a checkpoint, but {checkpoints.directory} has none")
    mesh = make_mesh(data=config.mesh.data, fsdp=config.mesh.fsdp, tensor=config.mesh.tensor)
    with jax.set_mesh(mesh):
        # What a user can get wrong comes first, what takes long comes last.
        check_models(_models(config), mesh)
        tokenizers = setup.load_tokenizers(config)
        rows, tally = setup.load_rows(config, tokenizers)
        if tally.dropped:
            say(f"bad records left out: {tally}")
        checkpoints.check_sources(rows.fingerprints)
        heldout = setup.heldout(config, tokenizers)
        teaching = setup.load_teaching(config, tokenizers, mesh)
        teachers = {n: (each.model, tokenizers.teachers[n]) for n, each in teaching.items()}
        evaluation = Evaluation(config, heldout, teachers)
        student = setup.load_student(config, run_dir, tokenizers.student, mesh, resuming=resuming)
        vocab_size = student.unembedding_VD.shape[0]
        tables = setup.device_tables(config, teaching, tokenizers, student_vocab_size=vocab_size)
        tables = replicated(tables, mesh)
        if not resuming:
            if is_first():
                _write_setting(run_dir, config, teaching)
            evaluation.clear()
            evaluation.of_student("student before", student, tokenizers.student)
            evaluation.of_teachers()

        student_graph, params, rest = setup.split_student(student, config)
        trained = Trained(params, _entry_logits(config, tables))
        state = init_state(trained, make_optimiser(config.optim, config.learned), mesh)
        del student, params, trained  # the state has taken their buffers
        batches = iter(training_batches(config, rows, teaching, mesh))
        if resuming:
            state, data_state = checkpoints.restore(state)
            batches.set_state(data_state)
            say(f"going on from step {int(state.step)}")

        models = {name: nnx.split(each.model) for name, each in teaching.items()}
        frozen = Frozen(rest, {name: params for name, (_, params) in models.items()}, tables)
        graphs = {name: graph for name, (graph, _) in models.items()}
        num_tokens = tokenizers.student.num_tokens
        step = bound_step(config, student_graph, graphs, frozen, state, mesh, num_tokens)
        state, stopped_by = run_steps(config, step, state, batches, checkpoints, run_dir=run_dir)
        checkpoints.close()
        if stopped_by is None:
            student = nnx.merge(student_graph, state.params.student, rest)
            merge_adapters(student)
            evaluation.of_student("student after", student, tokenizers.student)
            save_model(student, run_dir / "student", tokenizer_dir=tokenizers.student_directory)
            for name, logits_N in state.params.entry_logits.items():
                weights_N = row_softmax(logits_N, tables[name].projection)
                learned = to_host(teaching[name].projection, gathered(weights_N))
                path = run_dir / "projections" / f"{name}_learned.safetensors"
                if is_first():
                    save_projection(learned, path)
    return RunResult(run_dir, int(state.step), stopped_by)


def _write_setting(
    run_dir: Path, config: ExperimentConfig, teaching: Mapping[str, setup.Teaching]
) -> None:
    """Write what the run is made of."""
    write_text(run_dir / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))
    for name, each in teaching.items():
        save_projection(each.projection, run_dir / "projections" / f"{name}.safetensors")


def _models(config: ExperimentConfig) -> dict[str, str]:
    """What is loaded onto the mesh, by field."""
    teachers = {f"teachers.{name}.model": t.model for name, t in config.teaching.items()}
    return {"student.model": config.student.model, **teachers}


def _entry_logits(config: ExperimentConfig, tables: Mapping[str, Tables]) -> dict[str, jax.Array]:
    """Where each learned W starts: at W."""
    return {name: jnp.log(tables[name].projection.matrix_UV.data) for name in config.learned}


def bound_step(
    config: ExperimentConfig,
    student: nnx.GraphDef,
    teachers: Mapping[str, nnx.GraphDef],
    frozen: Frozen,
    state: TrainState,
    mesh: Mesh,
    num_tokens: int,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The jitted step with all that stays the same bound to it, from host batches.

    Args:
        config: The experiment.
        student: Of the model whose parameters are in the state.
        teachers: By name.
        frozen: Passed to every step.
        state: With the shardings of every later one.
        mesh: What all is on.
        num_tokens: Of the student's tokenizer.
    """
    update = make_step(
        student,
        teachers,
        make_optimiser(config.optim, config.learned),
        config,
        num_tokens=num_tokens,
        max_skipped_steps=config.optim.max_skipped_steps,
        shardings=jax.tree.map(lambda x: x.sharding, state),
    )
    num_parts, num_rows = config.optim.accumulation_steps, config.data.batch_size

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        placed = put_batch(batch, mesh, num_parts=num_parts, num_rows=num_rows)
        return update(state, frozen, placed)

    return step


def training_batches(
    config: ExperimentConfig, rows: RowSource, teaching: Mapping[str, setup.Teaching], mesh: Mesh
) -> grain.IterDataset:
    """Batches without end, of the rows that this process's devices need."""
    host, num_hosts = host_part(mesh)
    return row_batches(
        rows,
        batch_size=config.data.batch_size,
        seed=config.seed,
        weights=mixture_weights(config.data),
        tries={name: each.tries for name, each in teaching.items() if each.tries is not None},
        host=host,
        num_hosts=num_hosts,
    )
