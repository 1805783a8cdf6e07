"""The training step compiled ahead of time, for devices that need not be there."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from xtoken_jax.config import ExperimentConfig
from xtoken_jax.data.chain import chain_terms_of_rows
from xtoken_jax.errors import UsageError
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.hf_directory import read_config
from xtoken_jax.models.sharding import padded_vocab_size, parts_sharding, state_shardings
from xtoken_jax.text import resolve
from xtoken_jax.train import setup
from xtoken_jax.train.chips import Chip, topology_devices
from xtoken_jax.train.hlo_cost import Cost, product_flops, program_cost
from xtoken_jax.train.memory import memory_advice
from xtoken_jax.train.mesh import mesh_over
from xtoken_jax.train.optimiser import make_optimiser
from xtoken_jax.train.step import (
    DeviceBatch,
    DeviceTeacherBatch,
    Frozen,
    Trained,
    abstract_state,
    make_step,
)


@dataclass(frozen=True)
class Plan:
    """What a training step takes of each device.

    Attributes:
        devices: Of the mesh.
        chip: What one device is; None where nothing is known of it.
        argument_bytes: State, teachers, tables and batch.
        output_bytes: The new state and metrics.
        alias_bytes: Of the output, what takes the place of arguments.
        temporary_bytes: The rest.
        flops: Of the matrix products, a device's share.
        cost: From the compiled program; None where this jaxlib cannot read what the compiler wrote.
        step_tokens: Student positions in a batch, over all devices.
        compile_seconds: Tracing and compiling.
    """

    devices: int
    chip: Chip | None
    argument_bytes: int
    output_bytes: int
    alias_bytes: int
    temporary_bytes: int
    flops: float
    cost: Cost | None
    step_tokens: int
    compile_seconds: float

    @property
    def peak_bytes(self) -> int:
        """All that is there at once."""
        return self.argument_bytes + self.output_bytes - self.alias_bytes + self.temporary_bytes

    @property
    def fits(self) -> bool | None:
        """Whether the peak fits in the memory; None where that is not known."""
        return None if self.chip is None else self.peak_bytes <= self.chip.hbm_bytes

    def seconds(self) -> dict[str, float]:
        """Lower bounds and estimates of a step's time, by what they count; none without a chip.

        `step` is the largest of the first three and the collectives together, as if none of these
        overlapped with computing. Without a readable program there are the products alone.
        """
        if self.chip is None:
            return {}
        products = self.flops / self.chip.flops
        if self.cost is None:
            return {"products": products}
        parts = {
            "compiler": self.cost.cycles / self.chip.clock,
            "products": products,
            "memory": self.cost.num_bytes / self.chip.bandwidth,
        }
        collectives = sum(self.cost.collective_bytes.values()) / self.chip.interconnect
        return {**parts, "collectives": collectives, "step": max(parts.values()) + collectives}


def make_plan(config: ExperimentConfig, topology: str) -> Plan:
    """Compile the step of an experiment for a topology; nothing runs and no weights are read.

    Raises:
        UsageError: no such topology, libtpu is missing, or the mesh is not of its size.
        XTokenError: the compiler says that the step does not fit, or a model cannot be sharded so.
    """
    devices, chip = topology_devices(topology)
    mesh = mesh_over(devices, **dataclasses.asdict(config.mesh))
    if mesh.size != len(devices):
        raise UsageError(
            f"`mesh` must be over all {len(devices)} devices of {topology}, got {mesh.size}; "
            "set `--mesh.data`, `--mesh.fsdp` and `--mesh.tensor`"
        )
    with memory_advice(config):
        started = time.perf_counter()
        traced = _traced(config, mesh)
        compiled = traced.lower().compile()
        seconds = time.perf_counter() - started
    memory = compiled.memory_analysis()
    return Plan(
        devices=mesh.size,
        chip=chip,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        alias_bytes=memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        flops=product_flops(traced.jaxpr) / mesh.size,
        cost=_cost(compiled),
        step_tokens=config.data.batch_size * config.data.student_length,
        compile_seconds=seconds,
    )


def _cost(compiled: Any) -> Cost | None:
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError:  # libtpu may be of a later XLA than jaxlib
        return None
    return program_cost(text)


def _traced(config: ExperimentConfig, mesh: Mesh) -> Any:
    tokenizers = setup.load_tokenizers(_with_planned_tokenizers(config))
    teaching = {
        name: setup.teaching_with(
            teacher,
            _abstract_model(_architecture(config, teacher.model), mesh, teacher.dtype),
            tokenizers.student,
            tokenizers.teachers[name],
        )
        for name, teacher in config.teaching.items()
    }
    architecture = _student_architecture(config, tokenizers)
    student = _abstract_student(config, architecture, mesh)
    rows = student.embedding_VD.get_value().shape[0]
    tables = setup.device_tables(config, teaching, tokenizers, student_vocab_size=rows)
    graph, params, rest = setup.split_student(student, config)
    logits = {name: tables[name].projection.matrix_UV.data for name in config.learned}
    optimiser = make_optimiser(config.optim, config.learned)
    state = abstract_state(Trained(params, logits), optimiser, mesh)
    teachers = {name: nnx.split(each.model) for name, each in teaching.items()}
    batch = _abstract_batch(config, teaching, mesh)
    with jax.set_mesh(mesh):  # nothing may be computed here: its devices are not there
        step = make_step(
            graph,
            {name: graph for name, (graph, _) in teachers.items()},
            optimiser,
            config,
            num_tokens=tokenizers.student.num_tokens,
            max_skipped_steps=config.optim.max_skipped_steps,
            shardings=jax.tree.map(lambda x: x.sharding, state),
        )
        params = {name: _sharded(params, mesh) for name, (_, params) in teachers.items()}
        return step.trace(state, Frozen(_sharded(rest, mesh), params, tables), batch)


def _with_planned_tokenizers(config: ExperimentConfig) -> ExperimentConfig:
    """The same experiment, with names of tokenizers in the place of names of planned models."""

    def tokenizer(model: str) -> str:
        return config.planning[model].tokenizer if model in config.planning else model

    reference = config.student.tokenizer or tokenizer(config.student.model)
    teachers = {
        name: dataclasses.replace(teacher, model=tokenizer(teacher.model))
        for name, teacher in config.teachers.items()
    }
    student = dataclasses.replace(config.student, tokenizer=reference)
    return dataclasses.replace(config, student=student, teachers=teachers)


def _architecture(config: ExperimentConfig, model: str) -> Architecture:
    if model in config.planning:
        return Architecture.from_hf(config.planning[model].config)
    return Architecture.from_hf(read_config(resolve(model, weights=False)))


def _student_architecture(config: ExperimentConfig, tokenizers: setup.Tokenizers) -> Architecture:
    architecture = _architecture(config, config.student.model)
    if config.student.tokenizer is not None:  # its vocabulary will be transplanted
        num_tokens = tokenizers.student.num_tokens
        architecture = dataclasses.replace(architecture, vocab_size=num_tokens)
    if config.student.layers is not None:
        architecture = architecture.with_layers(config.student.layers)
    return architecture


def _abstract_model(
    architecture: Architecture,
    mesh: Mesh,
    dtype: str,
    *,
    param_dtype: str | None = None,
    remat: str = "none",
) -> Decoder:
    """A model of shapes without values; a teacher's, but for the options."""
    return nnx.eval_shape(
        lambda: Decoder(
            architecture,
            rngs=nnx.Rngs(0),
            dtype=jnp.dtype(dtype),
            param_dtype=jnp.dtype(param_dtype or dtype),
            remat=remat,
            padded_vocab_size=padded_vocab_size(architecture.vocab_size, mesh),
        )
    )


def _abstract_student(config: ExperimentConfig, architecture: Architecture, mesh: Mesh) -> Decoder:
    lora = config.student.lora
    model = _abstract_model(
        architecture,
        mesh,
        config.student.dtype,
        param_dtype=lora.base_dtype if lora.rank else "float32",
        remat=config.student.remat,
    )
    return nnx.eval_shape(lambda: setup.with_adapters(model, config, None))


def _sharded(params: Any, mesh: Mesh) -> Any:
    return _abstract(params, state_shardings(params, mesh))


def _abstract(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        tree,
        shardings,
    )


def _abstract_batch(
    config: ExperimentConfig, teaching: Mapping[str, setup.Teaching], mesh: Mesh
) -> DeviceBatch:
    """A batch of the shapes that `data.collate` makes."""
    batch, length = config.data.batch_size, config.data.student_length
    teachers = {}
    for name, teacher in config.teachers.items():
        spans = {
            "student_chunk_BS": np.full((batch, length), -1, np.int32),
            "teacher_chunk_BT": np.full((batch, teacher.length), -1, np.int32),
            "student_start_BN": np.zeros((batch, length), np.int32),
            "teacher_start_BN": np.zeros((batch, length), np.int32),
            "mask_BN": np.zeros((batch, length), bool),
        }
        tokens, chain = _tokens(batch, teacher.length), None
        if name in teaching and (tries := teaching[name].tries) is not None:
            ids_BS = np.zeros((batch, length), np.int32)
            chain = chain_terms_of_rows(ids_BS, tokens["ids_BS"], spans, tries)
        teachers[name] = DeviceTeacherBatch(tokens, spans, chain)
    target_mask_BS = jnp.zeros((batch, length), bool)
    whole = DeviceBatch(_tokens(batch, length), teachers, target_mask_BS)
    num_parts = config.optim.accumulation_steps
    parts = jax.tree.map(lambda x: x.reshape(num_parts, -1, *x.shape[1:]), whole)
    return _abstract(parts, jax.tree.map(lambda _: parts_sharding(mesh), parts))


def _tokens(batch: int, length: int) -> dict[str, Any]:
    names = ("ids_BS", "positions_BS", "segment_ids_BS")
    return {name: np.zeros((batch, length), np.int32) for name in names}
