"""The step writes the new state where the old one was."""

import jax
import jax.numpy as jnp
import pytest

from tests.tiny import tiny_config
from xtoken_jax.config import OptimConfig
from xtoken_jax.train import run
from xtoken_jax.train.optimiser import make_optimiser
from xtoken_jax.train.run import train
from xtoken_jax.train.step import update_in_place


def test_no_copy_of_the_state_is_made(tmp_path, monkeypatch, unchecked):
    compiled = []
    real = run.make_step

    def keeping(*args, **kwargs):
        update = real(*args, **kwargs)

        def step(state, *rest):
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
            compiled.append((size, update.lower(state, *rest).compile()))
            return update(state, *rest)

        return step

    monkeypatch.setattr(run, "make_step", keeping)
    train(tiny_config(tmp_path, optim={"steps": 1}, evaluation={"sources": []}))
    (size, step), *_ = compiled
    assert step.memory_analysis().alias_size_in_bytes == size


@pytest.mark.parametrize("is_good", [True, False])
def test_an_update_needs_no_room_beside_the_gradient(is_good):
    params = {f"w{i}_DD": jnp.full((300, 300), 1.0) for i in range(4)}
    optimiser = make_optimiser(OptimConfig(steps=10, learning_rate=0.1), {})

    def step(params, state, x_BD, is_good):
        gradient = jax.grad(lambda params: sum((x_BD @ w).sum() ** 2 for w in params.values()))
        return update_in_place(optimiser, gradient(params), params, state, where=is_good)

    # Of one row, so that its products are nothing beside the parameters.
    arguments = (params, optimiser.init(params), jnp.ones((1, 300)), jnp.asarray(is_good))
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()
    size = sum(w_DD.nbytes for w_DD in params.values())
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 1.1 * size
    assert memory.alias_size_in_bytes > 3 * size
    (after, _), before = compiled(*arguments), 1.0
    changed = [bool((w_DD != before).all()) for w_DD in after.values()]
    assert changed == [is_good] * 4
