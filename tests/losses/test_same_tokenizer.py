"""KL without a projection."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.gradients import check_gradient, rows_and_gradients
from tests.reference import losses as reference
from tests.reference import partition_losses
from xtoken_jax.losses.same_tokenizer import same_tokenizer_kl

jitted = jax.jit(same_tokenizer_kl, static_argnames=("num_tokens", "temperature", "reverse"))


def random_logits(draw, N, V, scale=3.0):
    return np.float32(scale * draw.normal(size=(N, V)))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("reverse", [False, True])
def test_equals_the_float64_reference_within_the_tokenizer(temperature, reverse):
    draw = np.random.default_rng(0)
    student, teacher = random_logits(draw, 5, 41), random_logits(draw, 5, 45)
    options = {"num_tokens": 37, "temperature": temperature, "reverse": reverse}
    result = jitted(student, teacher, jnp.ones(5, bool), **options)
    for n, value in enumerate(np.asarray(result)):
        p, q = (reference.softmax(x[n], 37, temperature)[:37] for x in (student, teacher))
        kl = partition_losses.kl(p, q) if reverse else partition_losses.kl(q, p)
        np.testing.assert_allclose(value, temperature**2 * kl, rtol=1e-5)


def test_equals_optax_and_is_zero_at_equality():
    draw = np.random.default_rng(1)
    student, teacher = random_logits(draw, 7, 19), random_logits(draw, 7, 19)
    mask = jnp.ones(7, bool)
    expected = jax.jit(
        lambda x, y: optax.losses.kl_divergence(jax.nn.log_softmax(x), jax.nn.softmax(y))
    )(student, teacher)
    np.testing.assert_allclose(jitted(student, teacher, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(jitted(student, student, mask), 0, atol=1e-6)


def test_the_gradient_is_the_difference_of_the_distributions():
    draw = np.random.default_rng(2)
    student, teacher = random_logits(draw, 4, 11), random_logits(draw, 4, 9)
    mask = np.array([True, False, True, True])
    function = functools.partial(jitted, num_tokens=9, temperature=2.0)
    values, (gradient,) = rows_and_gradients(lambda x: function(x, teacher, mask), student)
    p, q = (np.array([reference.softmax(row, 9, 2.0)[:9] for row in x]) for x in (student, teacher))
    expected = np.where(mask[:, None], 2 * (p - q), 0)
    np.testing.assert_allclose(gradient[:, :9], expected, atol=1e-6)
    assert not gradient[:, 9:].any()
    subset = function(student[mask], teacher[mask], np.ones(3, bool))
    np.testing.assert_allclose(values.sum(), np.sum(subset), rtol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradient_equals_finite_differences_and_scales_with_what_comes_from_above(reverse):
    draw = np.random.default_rng(3)
    pair = random_logits(draw, 2, 5, 1.0), random_logits(draw, 2, 5, 1.0)
    function = functools.partial(jitted, mask_N=np.ones(2, bool), reverse=reverse)
    up = np.float32(draw.normal(size=2))
    check_gradient(lambda *logits: (up * function(*logits)).sum(), pair)


@pytest.mark.parametrize("reverse", [False, True])
def test_infinite_logits_stay_finite(reverse):
    inf = np.inf
    student = np.float32([[0.0, 1.0, -inf, -inf], [500.0, -500.0, 0.0, 0.0]])
    teacher = np.float32([[-inf, 0.0, 1.0, -inf], [-500.0, 500.0, 0.0, 0.0]])
    values, gradients = rows_and_gradients(
        lambda x: jitted(x, teacher, np.ones(2, bool), reverse=reverse), student
    )
    assert np.isfinite(gradients).all()
    assert values[0] > 1000  # one allows what is impossible for the other
    np.testing.assert_allclose(values[1], 1000)


def test_compiles_once():
    chex.clear_trace_counter()
    function = jax.jit(chex.assert_max_traces(same_tokenizer_kl, n=1))
    draw = np.random.default_rng(4)
    masks = np.array([True, False]), np.array([False, True])
    first, second = (
        function(random_logits(draw, 2, 5), random_logits(draw, 2, 5), mask) for mask in masks
    )
    assert np.asarray(first)[1] == np.asarray(second)[0] == 0


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
