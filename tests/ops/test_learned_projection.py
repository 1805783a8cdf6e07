"""W with other weights, and its gradient: many entries a row and a column, pads, empty rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gradients import check_gradient
from tests.losses.cases import dense
from tests.ops.test_projection import product_and_gradient
from xtoken_jax.ops import project, row_softmax, to_device, with_weights
from xtoken_jax.projection import Projection

V, U, K = 60, 13, 11


@pytest.fixture(scope="module")
def projection():
    """Rows of 0 to 11 entries; two columns are in nearly every row, some in none."""
    draw = np.random.default_rng(0)
    ids_VK = np.full((V, K), -1, np.int32)
    weights_VK = np.zeros((V, K), np.float32)
    for row in range(V):
        count = (0, 1, 2, 5, K)[row % 5]
        others = draw.permutation(np.arange(2, U - 1))[: max(0, count - 2)]
        ids_VK[row, :count] = [0, 1, *others][:count]
        weights_VK[row, :count] = draw.dirichlet(np.ones(count)) if count else 0
    return Projection(ids_VK, weights_VK, V, U, "student", "teacher", {})


@pytest.fixture(scope="module")
def on_device(projection):
    return to_device(projection, student_vocab_size=V + 3, teacher_vocab_size=U + 2)


def random(*shape, seed=1):
    return np.random.default_rng(seed).random(shape, np.float32)


def test_rows_and_columns_of_many_entries(projection, on_device):
    probs_VN, up_UN = random(V + 3, 5), random(U + 2, 5, seed=2)
    result, gradient = product_and_gradient(probs_VN, up_UN, on_device)
    W = dense(projection)
    np.testing.assert_allclose(result[:U], W.T @ probs_VN[:V], rtol=1e-5)
    np.testing.assert_allclose(gradient[:V], W @ up_UN[:U], rtol=1e-5)
    assert not result[U:].any()
    assert not gradient[V:].any()
    assert (projection.ids_VK == 0).sum() > 40  # a column with several chunks


def test_other_weights_and_their_gradient(projection, on_device):
    probs_VN = random(V + 3, 4)
    weights_N = random(on_device.matrix_UV.nse, seed=3)

    def total(weights, probs):
        z_UN = project(jnp.asarray(probs), with_weights(on_device, jnp.asarray(weights)))
        return (z_UN**2).sum()

    check_gradient(total, (weights_N, probs_VN))
    matrix = np.zeros((U + 2, V + 3))
    np.add.at(matrix, tuple(np.asarray(on_device.matrix_UV.indices).T), np.asarray(weights_N))
    expected = ((matrix @ np.asarray(probs_VN, np.float64)) ** 2).sum()
    np.testing.assert_allclose(jax.jit(total)(weights_N, probs_VN), expected, rtol=1e-5)


def test_a_learned_w_stays_row_stochastic_and_keeps_its_pattern(projection, on_device):
    logits_N = 5 * random(on_device.matrix_UV.nse, seed=4) - 2
    learned = jax.jit(lambda x, W: project(jnp.eye(V + 3), with_weights(W, row_softmax(x, W))))
    rows_VU = np.asarray(learned(logits_N, on_device)).T
    has_entries = (projection.ids_VK >= 0).any(axis=1)
    np.testing.assert_allclose(rows_VU[:V].sum(axis=1), has_entries, rtol=1e-6)
    np.testing.assert_array_equal(rows_VU[:V, :U] > 0, dense(projection) > 0)


def test_the_logarithms_of_w_give_w_back(on_device):
    weights_N = on_device.matrix_UV.data
    result = jax.jit(row_softmax)(np.log(weights_N), on_device)
    np.testing.assert_allclose(result, weights_N, rtol=1e-5)


def test_as_many_weights_as_entries(on_device):
    with pytest.raises(ValueError, match="`weights_N` must have the shape"):
        with_weights(on_device, jnp.ones(3))
