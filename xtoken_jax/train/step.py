"""One jitted training step: both forward passes, the loss, the gradient, the update."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.config import LossConfig
from xtoken_jax.data import Batch
from xtoken_jax.losses import (
    ModelOutput,
    Tables,
    distillation_sums,
    dynamic_scaling,
    fixed_scaling,
    mean_over,
    next_token_log_probs,
)
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.sharding import state_shardings
from xtoken_jax.ops import Spans, row_softmax, with_weights

# The name of the one teacher in a batch.
TEACHER = "teacher"


class Trained(NamedTuple):
    """What the optimiser changes.

    Attributes:
        student: The student's parameters, float32.
        entry_logits_N: Of a learned W, one logit for each of its entries; else None.
    """

    student: nnx.State
    entry_logits_N: Float[Array, " N"] | None


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
    """A `data.TeacherBatch` on the devices."""

    tokens: dict[str, Int[Array, "B T"]]
    spans: Spans


class DeviceBatch(NamedTuple):
    """A `data.Batch` on the devices, rows over `data` and `fsdp`."""

    student: dict[str, Int[Array, "B S"]]
    teachers: dict[str, DeviceTeacherBatch]
    target_mask_BS: Bool[Array, "B S"]


def put_batch(batch: Batch, sharding: jax.sharding.Sharding) -> DeviceBatch:
    """Put a batch on the devices."""
    arrays = (
        batch.student,
        {name: (side.tokens, side.spans) for name, side in batch.teachers.items()},
        batch.target_mask_BS,
    )
    student, teachers, target_mask_BS = jax.device_put(arrays, sharding)
    sides = {
        name: DeviceTeacherBatch(tokens, Spans(**spans))
        for name, (tokens, spans) in teachers.items()
    }
    return DeviceBatch(student, sides, target_mask_BS)


def init_state(params: Trained, optimiser: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The state before the first step, the optimiser's born sharded like the parameters."""

    def init(params):
        zero = jnp.int32(0)
        return TrainState(params, optimiser.init(params), zero, zero, jnp.bool(True))

    shardings = state_shardings(jax.eval_shape(init, params), mesh)
    return jax.jit(init, out_shardings=shardings, donate_argnums=0)(params)


Metrics = dict[str, Float[Array, ""]]
Step = Callable[..., tuple[TrainState, Metrics]]


def make_step(
    student: nnx.GraphDef,
    teacher: nnx.GraphDef | None,
    optimiser: optax.GradientTransformation,
    loss: LossConfig,
    *,
    num_tokens: int,
    max_skipped_steps: int,
    shardings: TrainState,
) -> Step:
    """Build the step: `step(state, teacher_params, tables, batch) -> state, metrics`.

    The state is donated. A step whose loss or gradient is not finite leaves the parameters and the
    optimiser as they were. Where there were as many as may be skipped, so does every step after it,
    so that the state from before it is still there when the host learns of it.

    Args:
        student: Of the model whose parameters are in the state.
        teacher: None with `loss.distillation` `none`.
        optimiser: What `init_state` was given.
        loss: What is minimised.
        num_tokens: Of the student's tokenizer.
        max_skipped_steps: With a loss or gradient that is not finite.
        shardings: Of the state, the same before and after a step.
    """

    def loss_and_metrics(params, teacher_output, tables, batch):
        model = nnx.merge(student, params.student)
        output = _run(model, batch.student)
        if teacher_output is None:
            return _cross_entropy_only(output, batch, loss, num_tokens)
        if params.entry_logits_N is not None:
            weights_N = row_softmax(params.entry_logits_N, tables.projection)
            tables = tables._replace(projection=with_weights(tables.projection, weights_N))
        return _distillation(output, teacher_output, tables, batch, loss)

    def step(state, teacher_params, tables, batch):
        output = None
        if teacher is not None:
            output = _run(nnx.merge(teacher, teacher_params), batch.teachers[TEACHER].tokens)
        gradient_of = jax.value_and_grad(loss_and_metrics, has_aux=True)
        (total, metrics), gradient = gradient_of(state.params, output, tables, batch)
        norm = optax.tree.norm(gradient.student)
        is_finite = jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(gradient))
        healthy = state.healthy & (is_finite | (state.skipped < max_skipped_steps))
        updates, new_optimiser = optimiser.update(gradient, state.optimiser, state.params)
        params, optimiser_state = jax.tree.map(
            lambda after, before: jnp.where(healthy & is_finite, after, before),
            (optax.apply_updates(state.params, updates), new_optimiser),
            (state.params, state.optimiser),
        )
        number = state.step + healthy
        skipped = state.skipped + (healthy & ~is_finite)
        metrics |= {"loss": total, "gradient_norm": norm, "healthy": healthy, "skipped": skipped}
        return TrainState(params, optimiser_state, number, skipped, healthy), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def _run(model: Decoder, tokens: dict[str, jax.Array]) -> ModelOutput:
    return ModelOutput(model(**tokens), model.unembedding_VD, tokens["ids_BS"])


def _cross_entropy_only(output: ModelOutput, batch: DeviceBatch, loss: LossConfig, num_tokens: int):
    log_probs_BS = next_token_log_probs(
        output, num_tokens=num_tokens, block_tokens=loss.block_tokens
    )
    count = jnp.sum(batch.target_mask_BS, dtype=jnp.float32)
    total = mean_over(-jnp.sum(log_probs_BS, where=batch.target_mask_BS), count)
    return total, {"cross_entropy": total}


def _distillation(
    output: ModelOutput,
    teacher_output: ModelOutput,
    tables: Tables,
    batch: DeviceBatch,
    loss: LossConfig,
):
    sums = distillation_sums(
        output,
        teacher_output,
        batch.teachers[TEACHER].spans,
        tables,
        batch.target_mask_BS,
        loss.objective(),
        block_tokens=loss.block_tokens,
    )
    cross_entropy = mean_over(sums.cross_entropy, sums.num_targets)
    distillation = mean_over(sums.distillation, sums.num_chunks)
    if loss.scaling == "dynamic":
        total = dynamic_scaling(distillation, cross_entropy)
    else:
        total = fixed_scaling(
            distillation,
            cross_entropy,
            distillation_weight=loss.distillation_weight,
            cross_entropy_weight=loss.cross_entropy_weight,
        )
    metrics = {
        "cross_entropy": cross_entropy,
        "distillation": distillation,
        "num_chunks": sums.num_chunks,
    }
    if loss.distillation == "p_kl":
        metrics["agreement"] = mean_over(sums.agreement, sums.num_chunks)
        metrics["unreachable"] = mean_over(sums.unreachable, sums.num_chunks)
    return total, metrics
