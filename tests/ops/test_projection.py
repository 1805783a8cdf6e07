"""W on the device: the product, its gradient, its padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO

from tests.losses.cases import dense, random_projection
from xtoken_jax.ops import project, to_device


def test_the_product_and_its_gradient_equal_the_dense_ones():
    draw = np.random.default_rng(0)
    projection = random_projection(draw, 41, 29)
    device = to_device(projection)
    probs = jnp.asarray(draw.random((41, 7)), jnp.float32)
    up = jnp.asarray(draw.normal(size=(29, 7)), jnp.float32)
    W = dense(projection)
    np.testing.assert_allclose(project(probs, device), W.T @ np.asarray(probs), rtol=1e-5)
    _, pull = jax.vjp(lambda probs: project(probs, device), probs)
    np.testing.assert_allclose(pull(up)[0], W @ np.asarray(up), rtol=1e-4, atol=1e-6)


def test_it_is_a_sorted_bcoo_with_room_for_padded_vocabularies():
    projection = random_projection(np.random.default_rng(1), 10, 8)
    device = to_device(projection, student_vocab_size=12, teacher_vocab_size=11)
    assert isinstance(device.matrix_UV, BCOO)
    assert device.matrix_UV.shape == (11, 12)
    indices = np.asarray(device.matrix_UV.indices)
    assert (np.diff(indices[:, 0]) >= 0).all()
    np.testing.assert_array_equal(device.reachable_U[:8], dense(projection).sum(0) > 0)
    assert not np.asarray(device.reachable_U[8:]).any()


def test_an_unembedding_smaller_than_its_tokenizer_is_an_error():
    projection = random_projection(np.random.default_rng(2), 10, 8)
    with pytest.raises(ValueError, match="`teacher_vocab_size` must be at least the tokenizer's 8"):
        to_device(projection, teacher_vocab_size=7)
