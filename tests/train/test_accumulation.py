"""A batch computed in parts has the loss and the gradient of the whole batch."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import tiny_config, with_teacher
from xtoken_jax.config import MeshConfig
from xtoken_jax.train.accumulation import value_and_accumulated_grad
from xtoken_jax.train.metrics import TIMINGS
from xtoken_jax.train.run import train


def records(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for timing in TIMINGS:
            line.pop(timing)
    return lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A config whose batch is computed at once."""
    return tiny_config(tmp_path_factory.mktemp("pair"), optim={"steps": 3})


def in_parts(config, num_parts):
    optim = dataclasses.replace(config.optim, accumulation_steps=num_parts)
    return dataclasses.replace(config, optim=optim)


def in_directory(config, path):
    return dataclasses.replace(config, run_dir=str(path))


def assert_same_run(config, num_parts, tmp_path, rtol=2e-4, **changes):
    at_once = records(train(in_directory(config, tmp_path / "whole")).run_dir)
    other = dataclasses.replace(in_parts(config, num_parts), **changes)
    parts = records(train(in_directory(other, tmp_path / "parts")).run_dir)
    assert len(at_once) == len(parts) == config.optim.steps
    for one, other in zip(at_once, parts, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            # Adam divides by the root of small second moments: rounding grows from step to step.
            np.testing.assert_allclose(other[name], value, rtol=rtol, err_msg=name)


def test_parts_train_as_the_whole_batch_does(whole, tmp_path):
    assert_same_run(whole, 4, tmp_path)


def test_parts_on_a_mesh(whole, tmp_path):
    assert_same_run(whole, 2, tmp_path, mesh=MeshConfig(data=1, fsdp=2, tensor=2))


def test_a_learned_w_and_trust_take_the_sums_of_the_whole_batch(whole, tmp_path):
    config = with_teacher(whole, projection={"learned": True})
    second = with_teacher(whole, loss={"kind": "h_kl"}).teachers["tiny"]
    config = dataclasses.replace(
        config,
        teachers={**config.teachers, "second": second},
        loss=dataclasses.replace(config.loss, combine="trust"),
    )
    assert_same_run(config, 2, tmp_path)


def test_c_kl_in_parts(whole, tmp_path):
    assert_same_run(with_teacher(whole, loss={"kind": "c_kl"}), 2, tmp_path)


class TestGradient:
    """Against the chain rule of a small function, written out."""

    params = np.array([0.5, -1.0, 2.0], np.float32)
    parts = np.arange(12, dtype=np.float32).reshape(4, 3) / 7 + 0.1

    @staticmethod
    def sums_of(params, thrice, part):
        square = jnp.sum(params**2 * part * thrice)
        return {"square": square, "count": jnp.sum(part > 0.3, dtype=jnp.float32)}

    @staticmethod
    def total_of(sums):
        mean = sums["square"] / sums["count"]
        return jnp.sin(mean), mean

    def found(self, parts, *, keep=True):
        return value_and_accumulated_grad(
            lambda part: 3 * part, self.sums_of, self.total_of, self.params, parts, keep=keep
        )

    @pytest.mark.parametrize("keep", [True, False])
    def test_it_is_the_gradient_of_the_function_of_the_sums(self, keep):
        (total, mean), gradient = self.found(self.parts, keep=keep)
        params, parts = np.asarray(self.params, np.float64), np.asarray(self.parts, np.float64)
        count = (parts > 0.3).sum()
        expected_mean = 3 * ((params * parts) ** 2).sum() / count
        np.testing.assert_allclose(mean, expected_mean, rtol=1e-6)
        np.testing.assert_allclose(total, np.sin(expected_mean), rtol=1e-6)
        by_hand = np.cos(expected_mean) * 6 * params * (parts**2).sum(axis=0) / count
        np.testing.assert_allclose(gradient, by_hand, rtol=1e-5)

    def test_one_part_is_the_plain_gradient(self):
        (total, _), gradient = self.found(self.parts[:1])
        plain = jax.grad(
            lambda p: self.total_of(self.sums_of(p, 3 * self.parts[0], self.parts[0]))[0]
        )
        np.testing.assert_allclose(gradient, plain(self.params), rtol=1e-6)
        assert np.isfinite(total)

    def test_nothing_is_computed_twice_without_need(self):
        def flops(total_of, *, keep):
            def run(params, parts):
                def sums_of(params, constants, part):
                    return {"value": jnp.sum((params @ constants) ** 2), "count": jnp.sum(part)}

                return value_and_accumulated_grad(
                    lambda part: part @ part, sums_of, total_of, params, parts, keep=keep
                )

            size = 64
            given = (jnp.ones((size, size)), jnp.ones((3, size, size)))
            return jax.jit(run).lower(*given).compile().cost_analysis()["flops"]

        def mean(sums):
            return sums["value"] / sums["count"], 0.0

        def mean_of_square(sums):
            return sums["value"] ** 2 / sums["count"], 0.0

        # A pass has a product for the constants and one for the sums, and the second one more
        # for the gradient; a loop's body is counted once.
        product = 2 * 64**3
        assert flops(mean, keep=False) == pytest.approx(3 * product, rel=0.1)
        assert flops(mean_of_square, keep=True) == pytest.approx(4 * product, rel=0.1)
        assert flops(mean_of_square, keep=False) == pytest.approx(5 * product, rel=0.1)
