"""The step writes the new state where the old one was."""

import jax

from tests.tiny import tiny_config
from xtoken_jax.train import run
from xtoken_jax.train.run import train


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
