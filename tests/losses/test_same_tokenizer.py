"""KL without a projection."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from tests.reference import losses as reference
from tests.reference import partition_losses
from xtoken_jax.losses.same_tokenizer import same_tokenizer_kl

jitted = jax.jit(same_tokenizer_kl, static_argnames=("num_tokens", "temperature", "reverse"))


def random_logits(draw, N, V, scale=3.0):
    return jnp.asarray(scale * draw.normal(size=(N, V)), jnp.float32)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("reverse", [False, True])
def test_equals_the_float64_reference_within_the_tokenizer(temperature, reverse):
    draw = np.random.default_rng(0)
    student, teacher = random_logits(draw, 5, 41), random_logits(draw, 5, 45)
    options = {"num_tokens": 37, "temperature": temperature, "reverse": reverse}
    result = jitted(student, teacher, jnp.ones(5, bool), **options)
    for n in range(5):
        p, q = (reference.softmax(x[n], 37, temperature)[:37] for x in (student, teacher))
        kl = partition_losses.kl(p, q) if reverse else partition_losses.kl(q, p)
        np.testing.assert_allclose(result[n], temperature**2 * kl, rtol=1e-5)


def test_equals_optax_and_is_zero_at_equality():
    draw = np.random.default_rng(1)
    student, teacher = random_logits(draw, 7, 19), random_logits(draw, 7, 19)
    mask = jnp.ones(7, bool)
    expected = optax.losses.kl_divergence(jax.nn.log_softmax(student), jax.nn.softmax(teacher))
    np.testing.assert_allclose(jitted(student, teacher, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(jitted(student, student, mask), 0, atol=1e-6)


def test_the_gradient_is_the_difference_of_the_distributions():
    draw = np.random.default_rng(2)
    student, teacher = random_logits(draw, 4, 11), random_logits(draw, 4, 9)
    mask = jnp.array([True, False, True, True])
    value, gradient = jax.value_and_grad(
        lambda x: jitted(x, teacher, mask, num_tokens=9, temperature=2.0).sum()
    )(student)
    p, q = jax.nn.softmax(student[:, :9] / 2), jax.nn.softmax(teacher / 2)
    expected = np.where(np.asarray(mask)[:, None], 2 * (p - q), 0)
    np.testing.assert_allclose(gradient[:, :9], expected, atol=1e-6)
    assert not np.asarray(gradient[:, 9:]).any()
    subset = jitted(student[mask], teacher[mask], jnp.ones(3, bool), num_tokens=9, temperature=2.0)
    np.testing.assert_allclose(value, subset.sum(), rtol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradient_equals_finite_differences_and_scales_with_what_comes_from_above(reverse):
    draw = np.random.default_rng(3)
    pair = random_logits(draw, 2, 5, 1.0), random_logits(draw, 2, 5, 1.0)
    function = functools.partial(jitted, mask_N=jnp.ones(2, bool), reverse=reverse)
    check_grads(function, pair, order=1, modes=["rev"], rtol=2e-2)
    once, twice = (
        jax.grad(lambda x, scale=scale: scale * function(x, pair[1]).sum())(pair[0])
        for scale in (1.0, 2.0)
    )
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_infinite_logits_stay_finite(reverse):
    student = jnp.array([[0.0, 1.0, -jnp.inf, -jnp.inf], [500.0, -500.0, 0.0, 0.0]])
    teacher = jnp.array([[-jnp.inf, 0.0, 1.0, -jnp.inf], [-500.0, 500.0, 0.0, 0.0]])
    values, pull = jax.vjp(
        lambda x: jitted(x, teacher, jnp.ones(2, bool), reverse=reverse), student
    )
    assert np.isfinite(pull(jnp.ones(2))[0]).all()
    assert values[0] > 1000  # one allows what is impossible for the other
    np.testing.assert_allclose(values[1], 1000)


def test_compiles_once():
    chex.clear_trace_counter()
    function = jax.jit(chex.assert_max_traces(same_tokenizer_kl, n=1))
    draw = np.random.default_rng(4)
    masks = jnp.array([True, False]), jnp.array([False, True])
    first, second = (
        function(random_logits(draw, 2, 5), random_logits(draw, 2, 5), mask) for mask in masks
    )
    assert first[1] == second[0] == 0


@pytest.mark.parametrize(
    ("widths", "options", "message"),
    [
        ((4, 4), {"temperature": 0.0}, "`temperature` must be positive"),
        ((4, 4), {"temperature": float("nan")}, "`temperature` must be positive"),
        ((4, 5), {}, r"`num_tokens` must be given for logits of \(4, 5\) columns"),
        ((4, 5), {"num_tokens": 5}, r"`num_tokens` must be in \[1, 4\], got 5"),
        ((4, 5), {"num_tokens": 0}, r"`num_tokens` must be in \[1, 4\], got 0"),
    ],
)
def test_what_cannot_work_is_named(widths, options, message):
    logits = [jnp.zeros((1, width)) for width in widths]
    with pytest.raises(ValueError, match=message):
        same_tokenizer_kl(*logits, jnp.ones(1, bool), **options)
