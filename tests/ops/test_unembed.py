"""Log-softmax over a padded vocabulary, and the walk over blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xtoken_jax.ops import log_softmax, map_blocks, pick, unembed


def test_rows_past_the_tokenizer_get_no_probability():
    logits = jnp.array([[1.0, 2.0], [3.0, 0.0], [50.0, 50.0]])
    log_probs = log_softmax(logits, num_tokens=2)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=0), 1, rtol=1e-6)
    assert (np.asarray(log_probs[2]) == -np.inf).all()
    assert log_softmax(logits.astype(jnp.bfloat16), num_tokens=3).dtype == jnp.float32


def test_unembedding_is_the_matrix_product():
    draw = np.random.default_rng(0)
    hidden, rows = draw.normal(size=(5, 3)), draw.normal(size=(7, 3))
    logits = unembed(jnp.asarray(hidden, jnp.float32), jnp.asarray(rows, jnp.float32))
    np.testing.assert_allclose(logits, rows @ hidden.T, rtol=1e-5, atol=1e-6)


def test_pick_takes_one_entry_a_column():
    values = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(pick(values, jnp.array([2, 0])), [4.0, 1.0])


@pytest.mark.parametrize("block_tokens", [1, 4, 6, 14, 99])
@pytest.mark.parametrize("remat", [True, False])
def test_blocks_equal_one_call(block_tokens, remat):
    x_BSD = np.float32(np.random.default_rng(1).normal(size=(2, 7, 3)))
    ids_BS = np.arange(14, dtype=np.int32).reshape(2, 7)
    weight = np.float32([1.0, -2.0, 0.5])

    def function(weight, arrays):
        x_ND, ids_N = arrays
        return jnp.sin(x_ND @ weight) + ids_N, {"ids": ids_N}

    def total(weight):
        values, _ = map_blocks(
            lambda arrays: function(weight, arrays),
            (x_BSD, ids_BS),
            block_tokens=block_tokens,
            remat=remat,
        )
        return (values**2).sum(), values

    (_, values), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(weight)

    x_ND = np.float64(x_BSD.reshape(14, 3))
    expected = np.sin(x_ND @ weight) + np.arange(14)
    expected_gradient = (2 * expected * np.cos(x_ND @ weight)) @ x_ND
    np.testing.assert_allclose(values, expected.reshape(2, 7), rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4)
