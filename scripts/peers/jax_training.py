"""A training step of this project, from a batch on the host to new parameters."""

import time
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from serve import serve

from xtoken_jax.config import check_config
from xtoken_jax.data import Batch
from xtoken_jax.train import run, setup
from xtoken_jax.train.mesh import make_mesh
from xtoken_jax.train.optimiser import make_optimiser
from xtoken_jax.train.step import Frozen, Trained, init_state


def build(case: dict[str, Any]) -> tuple[Callable[[], float], dict[str, Any]]:
    """Set a run up as `xtoken train` does, and compile its step."""
    config = check_config(case["config"], name="bench")
    mesh = make_mesh(data=1, fsdp=1, tensor=1)
    with jax.set_mesh(mesh):
        tokenizers = setup.load_tokenizers(config)
        rows, _ = setup.load_rows(config, tokenizers)
        teaching = setup.load_teaching(config, tokenizers, mesh)
        student = setup.load_student(config, None, tokenizers.student, mesh, resuming=False)
        vocab_size = student.unembedding_VD.shape[0]
        tables = setup.device_tables(config, teaching, tokenizers, student_vocab_size=vocab_size)
        graph, params, rest = setup.split_student(student, config)
        trained = Trained(params, {})
        optimiser = make_optimiser(config.optim, {})
        state = init_state(trained, optimiser, mesh)
        del student, params, trained
        teachers = {name: nnx.split(each.model) for name, each in teaching.items()}
        frozen = Frozen(rest, {name: params for name, (_, params) in teachers.items()}, tables)
        graphs = {name: graph for name, (graph, _) in teachers.items()}
        num_tokens = tokenizers.student.num_tokens
        step = run.bound_step(config, graph, graphs, frozen, state, mesh, num_tokens)
    batches = iter(run.training_batches(config, rows, teaching, mesh))
    tokens: list[int] = []
    data_seconds: list[float] = []

    def once() -> float:
        nonlocal state
        with jax.set_mesh(mesh):
            start = time.perf_counter()
            batch: Batch = next(batches)
            data_seconds.append(time.perf_counter() - start)
            tokens.append(batch.num_tokens)
            state, metrics = step(state, batch)
            return float(metrics["loss"])

    once()  # compiles
    del tokens[:], data_seconds[:]

    def more() -> dict[str, Any]:
        return {"tokens": tokens, "parts": {"data": data_seconds}}

    return once, {"more": more}


if __name__ == "__main__":
    serve(build)
