"""W on the device: the product, its gradient, its padding."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO
from jax.sharding import NamedSharding, PartitionSpec

from tests.losses.cases import dense, random_projection
from xtoken_jax.ops import project, to_device
from xtoken_jax.train.mesh import make_mesh


@jax.jit
def jitted_product_and_gradient(probs_VN, up_UN, W):
    product_UN, pull = jax.vjp(lambda probs: project(probs, W), probs_VN)
    return product_UN, pull(up_UN)[0]


def product_and_gradient(*args):
    return tuple(map(np.asarray, jitted_product_and_gradient(*args)))


def test_the_product_and_its_gradient_equal_the_dense_ones():
    draw = np.random.default_rng(0)
    projection = random_projection(draw, 41, 29)
    device = to_device(projection)
    probs, up = np.float32(draw.random((41, 7))), np.float32(draw.normal(size=(29, 7)))
    W = dense(projection)
    product, gradient = product_and_gradient(probs, up, device)
    np.testing.assert_allclose(product, W.T @ probs, rtol=1e-5)
    np.testing.assert_allclose(gradient, W @ up, rtol=1e-4, atol=1e-6)


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


def test_the_gradient_for_probabilities_does_not_pay_for_that_of_the_weights():
    device = to_device(random_projection(np.random.default_rng(3), 64, 48))
    leaves, structure = jax.tree.flatten(device)
    probs, up = jnp.ones((64, 16)), jnp.ones((48, 16))

    def operations(argnums):
        def total(probs, weights_N, up, leaves):
            device = jax.tree.unflatten(structure, leaves)
            matrix_UV = BCOO((weights_N, device.matrix_UV.indices), shape=(48, 64))
            return (project(probs, replace(device, matrix_UV=matrix_UV)) * up).sum()

        gradient = jax.jit(jax.grad(total, argnums))
        compiled = gradient.lower(probs, device.matrix_UV.data, up, leaves).compile()
        return compiled.cost_analysis()["flops"]

    assert operations((0, 1)) - operations((0,)) > device.matrix_UV.nse * 16
    # That of the product alone is a multiplication and an addition a slot.
    slots = device.to_student.first.ids_RJ.size + 8 * len(device.to_student.chunk_rows_C)
    assert operations((0,)) < 3 * slots * 16


@pytest.mark.parametrize("tensor", [2, 8])
def test_a_vocabulary_split_over_devices(tensor):
    projection = random_projection(np.random.default_rng(4), 64, 48)
    device = to_device(projection)
    draw = np.random.default_rng(5)
    probs, up = (jnp.asarray(draw.random((rows, 8)), jnp.float32) for rows in (64, 48))
    mesh = make_mesh(data=1, fsdp=8 // tensor, tensor=tensor)
    over_vocabulary = NamedSharding(mesh, PartitionSpec("tensor", "fsdp"))

    @jax.jit
    def both_ways(probs, up):
        result, backward = jax.vjp(lambda probs: project(probs, device), probs)
        return result, backward(up)[0]

    with jax.set_mesh(mesh):
        result, gradient = both_ways(*jax.device_put((probs, up), over_vocabulary))
    W = dense(projection)
    np.testing.assert_allclose(result, W.T @ np.asarray(probs), rtol=1e-5)
    np.testing.assert_allclose(gradient, W @ np.asarray(up), rtol=1e-5)
