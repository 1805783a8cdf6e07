"""The learning-rate schedule and the optimiser."""

import jax.numpy as jnp
import numpy as np

from xtoken_jax.config import OptimConfig, ProjectionConfig
from xtoken_jax.train.optimiser import learning_rate_schedule, make_optimiser
from xtoken_jax.train.step import Trained


def test_schedule_rises_from_the_first_step_and_falls_to_the_final_fraction():
    config = OptimConfig(steps=100, warmup_steps=4, learning_rate=1.0, final_learning_rate=0.1)
    rate = learning_rate_schedule(config)
    np.testing.assert_allclose([rate(step) for step in (0, 2, 4)], [0.2, 0.6, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rate(100), 0.1, rtol=1e-5)
    np.testing.assert_allclose(rate(52), 0.55, rtol=1e-5)  # half way down the cosine


def test_without_warm_up_the_first_step_has_the_full_rate():
    rate = learning_rate_schedule(OptimConfig(steps=10, learning_rate=0.5))
    np.testing.assert_allclose(rate(0), 0.5, rtol=1e-6)


def test_a_large_gradient_is_clipped_to_the_norm():
    optimiser = make_optimiser(OptimConfig(steps=10, learning_rate=1.0, clip_norm=1.0), {})
    params = {"w_D": jnp.zeros(3)}
    small = {"w_D": jnp.array([0.6, 0.0, 0.8])}
    large = {"w_D": 50 * small["w_D"]}
    state = optimiser.init(params)
    # AdamW's first update is scale-free, so look at the moments that it keeps.
    _, after_small = optimiser.update(small, state, params)
    _, after_large = optimiser.update(large, state, params)
    np.testing.assert_allclose(after_large[1][0].mu["w_D"], after_small[1][0].mu["w_D"], rtol=1e-5)


def test_a_learned_w_has_its_own_rate_and_is_not_clipped():
    projection = ProjectionConfig(learned=True, learning_rate=0.5)
    optim = OptimConfig(steps=10, learning_rate=1e-3, clip_norm=1.0)
    optimiser = make_optimiser(optim, {"qwen3": projection})
    params = Trained({"w_D": jnp.zeros(3)}, {"qwen3": jnp.zeros(2)})
    entries = {"qwen3": jnp.array([100.0, -200.0])}
    gradient = Trained({"w_D": jnp.array([30.0, 0.0, 40.0])}, entries)
    updates, state = optimiser.update(gradient, optimiser.init(params), params)
    np.testing.assert_allclose(updates.student["w_D"], [-1e-3, 0, -1e-3], rtol=1e-4)
    np.testing.assert_allclose(updates.entry_logits["qwen3"], [-0.5, 0.5], rtol=1e-4)
    moments = state.inner_states["qwen3"].inner_state[0].mu.entry_logits["qwen3"]
    np.testing.assert_allclose(moments, [10.0, -20.0], rtol=1e-5)  # a tenth, whole
