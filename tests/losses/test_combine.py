"""Dynamic and fixed scaling."""

import jax
import jax.numpy as jnp
import numpy as np

from xtoken_jax.losses import dynamic_scaling, fixed_scaling, mean_over


def test_dynamic_scaling_has_the_value_of_two_cross_entropies():
    np.testing.assert_allclose(dynamic_scaling(jnp.float32(0.2), jnp.float32(3.0)), 6.0, rtol=1e-6)


def test_dynamic_scaling_weights_the_gradient_by_the_ratio():
    gradients = jax.grad(dynamic_scaling, argnums=(0, 1))(jnp.float32(0.5), jnp.float32(3.0))
    np.testing.assert_allclose(gradients, (6.0, 1.0), rtol=1e-6)


def test_without_distillation_cross_entropy_stands_alone():
    value, gradients = jax.value_and_grad(dynamic_scaling, argnums=(0, 1))(
        jnp.float32(0.0), jnp.float32(3.0)
    )
    assert value == 3.0
    assert gradients == (0.0, 1.0)


def test_fixed_scaling_is_a_weighted_sum():
    total = fixed_scaling(
        jnp.float32(2.0), jnp.float32(3.0), distillation_weight=0.5, cross_entropy_weight=2.0
    )
    assert total == 7.0


def test_the_mean_of_nothing_is_zero_with_no_gradient():
    value, gradient = jax.value_and_grad(mean_over)(jnp.float32(0.0), jnp.float32(0.0))
    assert value == gradient == 0.0
    assert mean_over(jnp.float32(6.0), jnp.float32(4.0)) == 1.5
