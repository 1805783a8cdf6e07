"""Cross-entropy: known numbers, padding, -inf."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.gradients import rows_and_gradients
from tests.reference import losses as reference
from xtoken_jax.losses import cross_entropy as unjitted_cross_entropy

cross_entropy = jax.jit(unjitted_cross_entropy, static_argnames="num_tokens")


def test_equals_the_float64_reference():
    draw = np.random.default_rng(0)
    logits = np.float32(4 * draw.normal(size=(13, 41)))
    targets = draw.integers(0, 37, 13)
    result = cross_entropy(logits, targets, jnp.ones(13, bool), num_tokens=37)
    expected = [reference.cross_entropy(logits[n], targets[n], 37) for n in range(13)]
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary():
    result = cross_entropy(jnp.zeros((2, 32)), jnp.array([3, 31]), jnp.ones(2, bool))
    np.testing.assert_allclose(result, np.log(32), rtol=1e-6)


def test_padding_returns_zero_and_no_gradient():
    mask = np.array([True, False])
    logits = np.float32([[1.0, 2.0], [3.0, -5.0]])
    values, (gradient,) = rows_and_gradients(
        lambda logits: cross_entropy(logits, np.array([0, -1]), mask), logits
    )
    assert values[1] == 0
    assert not gradient[1].any()
    np.testing.assert_allclose(gradient[0].sum(), 0, atol=1e-6)


def test_minus_infinity_on_another_token_changes_nothing_else():
    value, gradient = rows_and_gradients(
        lambda x: cross_entropy(x, np.array([0]), np.ones(1, bool)),
        np.float32([[1.0, -np.inf, 2.0]]),
    )
    np.testing.assert_allclose(value, np.log(1 + np.e), rtol=1e-6)
    assert np.isfinite(gradient).all()
