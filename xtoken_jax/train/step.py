"""One jitted training step: both forward passes, the loss, the gradient, the update."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.config import ExperimentConfig
from xtoken_jax.data import Batch
from xtoken_jax.losses import ChainBatch, ModelOutput, Tables
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.sharding import LOOKUP_SPEC, constrain, parts_sharding, state_shardings
from xtoken_jax.ops import Spans, row_softmax, with_weights
from xtoken_jax.train.accumulation import value_and_accumulated_grad
from xtoken_jax.train.loss import (
    Lesson,
    LossSums,
    Metrics,
    loss_sums,
    total_loss,
    weights_take_values,
)


class Trained(NamedTuple):
    """What the optimiser changes.

    Attributes:
        student: The student's parameters, or its adapters; float32.
        entry_logits: Of each learned W, by teacher, one logit for each of its entries.
    """

    student: nnx.State
    entry_logits: dict[str, Float[Array, " N"]]


class Frozen(NamedTuple):
    """What every step reads and none changes.

    Attributes:
        student: The part of the student that is not trained, empty without adapters.
        teachers: Parameters, by name.
        tables: Of each teacher's vocabulary and the student's, by name.
    """

    student: nnx.State
    teachers: dict[str, nnx.State]
    tables: dict[str, Tables]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a step changes.

    Attributes:
        params: What is trained.
        optimiser: The optimiser's state, sharded like the parameters.
        step: Steps taken so far, those that were skipped included.
        skipped: Steps whose loss or gradient was not finite.
        healthy: False once there was one such step too many; from then on nothing changes.
    """

    params: Trained
    optimiser: Any
    step: Int[Array, ""]
    skipped: Int[Array, ""]
    healthy: Bool[Array, ""]


class DeviceTeacherBatch(NamedTuple):
    """A `data.TeacherBatch` on the devices, in parts."""

    tokens: dict[str, Int[Array, "M B T"]]
    spans: dict[str, Array]
    chain: ChainBatch | None


class DeviceBatch(NamedTuple):
    """A `data.Batch` on the devices, in M parts of which one is computed at a time.

    Of each part the rows are over `data` and `fsdp`.
    """

    student: dict[str, Int[Array, "M B S"]]
    teachers: dict[str, DeviceTeacherBatch]
    target_mask_BS: Bool[Array, "M B S"]


def put_batch(batch: Batch, mesh: Mesh, *, num_parts: int, num_rows: int) -> DeviceBatch:
    """Put a batch on the devices.

    Args:
        batch: This process's rows: see `mesh.host_part`.
        mesh: The rows of each part go over its axes `data` and `fsdp`.
        num_parts: Divides the rows of each process.
        num_rows: Of all processes.
    """
    sharding = parts_sharding(mesh)

    def put_array(x: np.ndarray) -> jax.Array:
        parts = x.reshape(num_parts, -1, *x.shape[1:])
        shape = (num_parts, num_rows // num_parts, *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, parts, shape)

    def put(arrays: Any) -> Any:
        return jax.tree.map(put_array, arrays)

    teachers = {
        name: DeviceTeacherBatch(*put((side.tokens, side.spans, side.chain)))
        for name, side in batch.teachers.items()
    }
    return DeviceBatch(put(batch.student), teachers, put(batch.target_mask_BS))


def init_state(params: Trained, optimiser: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The state before the first step, the optimiser's born sharded like the parameters."""
    init = partial(_initial, optimiser)
    shardings = state_shardings(jax.eval_shape(init, params), mesh)
    return jax.jit(init, out_shardings=shardings, donate_argnums=0)(params)


def abstract_state(
    params: Trained, optimiser: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """What `init_state` returns, as `jax.ShapeDtypeStruct`s with shardings; `params` are such."""
    state = jax.eval_shape(partial(_initial, optimiser), params)
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        state,
        state_shardings(state, mesh),
    )


def _initial(optimiser: optax.GradientTransformation, params: Trained) -> TrainState:
    zero = jnp.int32(0)
    return TrainState(params, optimiser.init(params), zero, zero, jnp.bool(True))


Step = Callable[..., tuple[TrainState, Metrics]]


def make_step(
    student: nnx.GraphDef,
    teachers: Mapping[str, nnx.GraphDef],
    optimiser: optax.GradientTransformation,
    config: ExperimentConfig,
    *,
    num_tokens: int,
    max_skipped_steps: int,
    shardings: TrainState,
) -> Step:
    """Build the step: `step(state, frozen, batch) -> state, metrics`.

    The state is donated. A step whose loss or gradient is not finite leaves the parameters and the
    optimiser as they were. Where there were as many as may be skipped, so does every step after it,
    so that the state from before it is still there when the host learns of it.

    Args:
        student: Of the model whose parameters are in the state.
        teachers: By name, of those that something is learned from; a `Frozen` has the same names.
        optimiser: What `init_state` was given.
        config: Says what is minimised.
        num_tokens: Of the student's tokenizer.
        max_skipped_steps: With a loss or gradient that is not finite.
        shardings: Of the state, the same before and after a step.
    """
    teaching, loss = config.teaching, config.loss

    def sums_of(frozen, models, params, hidden, batch) -> LossSums:
        output = _output(nnx.merge(student, params.student, frozen.student), batch.student)
        lessons = {}
        for name, model in models.items():
            side = batch.teachers[name]
            lessons[name] = Lesson(
                output=_output(model, side.tokens, hidden[name]),
                segment_ids_BT=side.tokens["segment_ids_BS"],
                spans=Spans(**side.spans),
                chain=side.chain,
                tables=frozen.tables[name],
            )
        for name, logits_N in params.entry_logits.items():
            lessons[name] = _with_learned(lessons[name], logits_N)
        return loss_sums(
            output, lessons, batch.target_mask_BS, teaching, loss, num_tokens=num_tokens
        )

    def step(state, frozen, batch):
        models = {n: nnx.merge(graph, frozen.teachers[n]) for n, graph in teachers.items()}
        sizes = {n: tables.projection.num_teacher_tokens for n, tables in frozen.tables.items()}
        (total, metrics), gradient = value_and_accumulated_grad(
            lambda part: {n: model(**part.teachers[n].tokens) for n, model in models.items()},
            partial(sums_of, frozen, models),
            lambda sums: total_loss(sums, teaching, loss, sizes),
            state.params,
            batch,
            keep=weights_take_values(loss),
            shardings=shardings.params,
        )
        norm = optax.tree.norm(gradient.student)
        is_finite = jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(gradient))
        healthy = state.healthy & (is_finite | (state.skipped < max_skipped_steps))
        params, optimiser_state = update_in_place(
            optimiser, gradient, state.params, state.optimiser, where=healthy & is_finite
        )
        number = state.step + healthy
        skipped = state.skipped + (healthy & ~is_finite)
        metrics |= {"loss": total, "gradient_norm": norm, "healthy": healthy, "skipped": skipped}
        return TrainState(params, optimiser_state, number, skipped, healthy), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def update_in_place(
    optimiser: optax.GradientTransformation,
    gradient: Any,
    params: Any,
    optimiser_state: optax.OptState,
    *,
    where: Bool[Array, ""],
) -> tuple[Any, optax.OptState]:
    """Parameters, a tree like their gradient, and the optimiser's state after one update.

    Args:
        optimiser: Made the state.
        gradient: Of the parameters.
        params: Any tree of arrays.
        optimiser_state: Likewise.
        where: Whether to update at all; if not, both come back as they were.

    A condition, and not `jnp.where` on the results: those would need the old values still when the
    new ones are there, and XLA on a CPU then copies a state that was donated.
    """

    def updated(params: Any, optimiser_state: optax.OptState) -> tuple[Any, optax.OptState]:
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, params)
        return optax.apply_updates(params, updates), optimiser_state

    return jax.lax.cond(where, updated, lambda *unchanged: unchanged, params, optimiser_state)


def _with_learned(lesson: Lesson, logits_N: Float[Array, " N"]) -> Lesson:
    tables = lesson.tables
    weights_N = row_softmax(logits_N, tables.projection)
    projection = with_weights(tables.projection, weights_N)
    return lesson._replace(tables=tables._replace(projection=projection))


def _output(
    model: Decoder, tokens: dict[str, jax.Array], hidden_BSD: jax.Array | None = None
) -> ModelOutput:
    # Whole rows before the walk over blocks, which would gather them anew for every block.
    unembedding_VD = constrain(model.unembedding_VD, LOOKUP_SPEC)
    if hidden_BSD is None:
        hidden_BSD = model(**tokens)
    return ModelOutput(hidden_BSD, unembedding_VD, tokens["ids_BS"])
