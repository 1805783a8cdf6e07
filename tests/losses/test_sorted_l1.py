"""The sorted L1: both ways of sorting against float64, each other, and on eight devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.gradients import check_gradient, rows_and_gradients
from tests.reference import partition_losses as reference
from xtoken_jax.losses.sorted_l1 import sorted_l1

jitted = jax.jit(sorted_l1, static_argnames=("shorter", "top_k", "on_host"))

both_sorts = pytest.mark.parametrize("on_host", [True, False], ids=["host", "device"])
both_ways = pytest.mark.parametrize("shorter", ["truncate", "pad"])


def random_columns(draw, R, N):
    """Columns that sum to 1, with a long tail and a few zeros."""
    columns = np.exp(3 * draw.normal(size=(R, N))) * (draw.random((R, N)) > 0.1)
    return np.float32(columns / np.maximum(columns.sum(0), 1e-9))


@functools.partial(jax.jit, static_argnames=("shorter", "top_k", "on_host"))
def gradients(p, q, up, **options):
    return jax.grad(lambda p, q: (up * sorted_l1(p, q, **options)).sum(), argnums=(0, 1))(p, q)


@both_sorts
@both_ways
@pytest.mark.parametrize("shape", [(1, 1, 3), (41, 7, 5), (7, 41, 5)])
@pytest.mark.parametrize("top_k", [None, 1, 9])
def test_equals_the_float64_reference(on_host, shorter, shape, top_k):
    R, Q, N = shape
    draw = np.random.default_rng(0)
    p, q = random_columns(draw, R, N), random_columns(draw, Q, N)
    result = jitted(p, q, shorter=shorter, top_k=top_k, on_host=on_host)
    expected = [reference.sorted_l1(p[:, n], q[:, n], shorter, top_k) for n in range(N)]
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@both_ways
@pytest.mark.parametrize("top_k", [None, 5])
def test_both_sorts_give_the_same_gradient(shorter, top_k):
    draw = np.random.default_rng(1)
    # Of few values, so that most entries are equal to others and to those of the other side.
    p, q = (np.float32(draw.integers(0, 4, (size, 6)) / 4) for size in (12, 9))
    up = np.float32(draw.normal(size=6))
    options = {"shorter": shorter, "top_k": top_k}
    on_host = gradients(p, q, up, on_host=True, **options)
    on_device = gradients(p, q, up, on_host=False, **options)
    chex.assert_trees_all_equal(on_host, on_device)
    assert all(np.asarray(gradient).any() for gradient in on_host)


@both_sorts
def test_the_gradient_is_the_sign_at_the_rank_and_zero_where_both_are_equal(on_host):
    p = np.array([[0.1], [0.5], [0.3]], np.float32)
    q = np.array([[0.4], [0.3], [0.2], [0.05]], np.float32)
    up = np.array([2.0], np.float32)
    to_p, to_q = gradients(p, q, up, shorter="pad", on_host=on_host)
    assert to_p.tolist() == [[-2], [2], [0]]
    assert to_q.tolist() == [[-2], [0], [2], [2]]
    to_p, to_q = gradients(p, q, up, shorter="truncate", on_host=on_host)
    assert to_p.tolist() == [[-2], [2], [0]]
    assert to_q.tolist() == [[-2], [0], [2], [0]]
    to_p, to_q = gradients(p, q, up, shorter="truncate", top_k=1, on_host=on_host)
    assert to_p.tolist() == [[0], [2], [0]]
    assert to_q.tolist() == [[-2], [0], [0], [0]]


@both_sorts
@both_ways
def test_gradient_equals_finite_differences(on_host, shorter):
    draw = np.random.default_rng(2)
    # Distinct by much more than the step of the differences.
    values = draw.permutation(np.arange(1, 3 * (8 + 6) + 1) / 8).reshape(3, 14).T
    up = np.float32(draw.normal(size=3))

    def loss(p, q):
        return (up * sorted_l1(p, q, shorter=shorter, on_host=on_host)).sum()

    check_gradient(loss, (np.float32(values[:8]), np.float32(values[8:])), eps=1e-2, rtol=1e-2)


@both_sorts
def test_in_a_walk_over_blocks_with_one_side_constant(on_host):
    draw = np.random.default_rng(3)
    p, q = (np.float32(draw.random((3, size, 2))) for size in (6, 7))

    def walk(p):
        block = jax.checkpoint(
            lambda pair: sorted_l1(pair[0] * 2, pair[1], shorter="truncate", on_host=on_host)
        )
        return jax.lax.map(block, (p, jax.lax.stop_gradient(q))).sum()

    def plainly(p):
        ranked = jnp.sort(2 * p, axis=1)[:, ::-1] - jnp.sort(q, axis=1)[:, :0:-1]
        return jnp.abs(ranked).sum()

    value, gradient = jax.jit(jax.value_and_grad(walk))(p)
    expected, expected_gradient = jax.jit(jax.value_and_grad(plainly))(p)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient)


def test_what_is_kept_for_the_gradient_is_a_byte_an_entry_of_the_sides_that_want_it():
    p, q = jnp.ones((6, 2)), jnp.ones((5, 2))
    function = functools.partial(sorted_l1, shorter="pad", on_host=False)

    def kept(function, *args):
        leaves = jax.tree.leaves(jax.eval_shape(lambda *args: jax.vjp(function, *args)[1], *args))
        return [(leaf.shape, leaf.dtype) for leaf in leaves]

    assert kept(lambda p: function(p, q), p) == [((6, 2), np.int8)]
    assert kept(lambda q: function(p, q), q) == [((5, 2), np.int8)]
    assert kept(function, p, q) == [((6, 2), np.int8), ((5, 2), np.int8)]


def test_columns_over_eight_devices_equal_one():
    mesh = Mesh(np.array(jax.devices()[:8]), "data")
    draw = np.random.default_rng(4)
    p, q = random_columns(draw, 23, 16), random_columns(draw, 17, 16)
    up = np.float32(draw.normal(size=16))
    for options in ({"shorter": "truncate"}, {"shorter": "pad", "top_k": 4}):
        over = [jax.device_put(x, NamedSharding(mesh, PartitionSpec(None, "data"))) for x in (p, q)]
        np.testing.assert_allclose(jitted(*over, **options), jitted(p, q, **options), rtol=1e-6)
        chex.assert_trees_all_close(
            gradients(*over, up, **options), gradients(p, q, up, **options), rtol=1e-6
        )


@both_sorts
def test_compiles_once(on_host):
    chex.clear_trace_counter()
    function = jax.jit(
        chex.assert_max_traces(
            lambda p, q: sorted_l1(p, q, shorter="pad", top_k=3, on_host=on_host), n=1
        )
    )
    draw = np.random.default_rng(5)
    results = [function(random_columns(draw, 8, 2), random_columns(draw, 5, 2)) for _ in range(2)]
    assert not np.array_equal(*results)


def test_nothing_on_one_side():
    p, nothing = np.ones((3, 2), np.float32) / 3, jnp.zeros((0, 2))
    assert jitted(p, nothing, shorter="truncate").tolist() == [0, 0]
    values, (gradient,) = rows_and_gradients(lambda p: sorted_l1(p, nothing, shorter="pad"), p)
    np.testing.assert_allclose(values, [1, 1], rtol=1e-6)
    np.testing.assert_allclose(gradient, np.ones((3, 2)))


@both_sorts
def test_a_value_that_is_not_a_number_is_not_hidden(on_host):
    p = np.array([[0.5, 0.5], [np.nan, 0.5]], np.float32)
    q = np.full((2, 2), 0.5, np.float32)
    result = np.asarray(jitted(p, q, shorter="pad", on_host=on_host))
    assert np.isnan(result[0])
    assert result[1] == 0


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_must_be_positive(top_k):
    with pytest.raises(ValueError, match="`top_k` must be at least 1, got"):
        sorted_l1(jnp.ones((3, 1)), jnp.ones((3, 1)), shorter="pad", top_k=top_k)
