import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from xtoken_jax.train.integrity import checksum

TREE = {
    "float": np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32),
    "half": np.arange(5, dtype=np.float32).astype(jnp.bfloat16),
    "step": np.int32(7),
    "flag": np.bool_(True),
}


def of(tree):
    return int(checksum(jax.tree.map(jnp.asarray, tree)))


@pytest.mark.parametrize("name", TREE)
def test_any_lowest_bit_changes_it(name):
    changed = np.array(TREE[name])
    words = changed.reshape(-1)[-1:].view(f"uint{8 * changed.itemsize}")
    words ^= 1
    assert of(TREE | {name: changed}) != of(TREE)


def test_arrays_that_change_places_change_it():
    values = TREE["float"]
    assert of([values, 2 * values]) != of([2 * values, values])


def test_zeros_that_pad_do_not():
    padded = np.pad(TREE["float"], ((0, 3), (0, 0)))
    padded[-1] = -0.0
    assert of(TREE | {"float": padded}) == of(TREE)


def test_a_mesh_does_not():
    mesh = jax.make_mesh((4,), ("data",))
    sharded = jax.device_put(TREE["float"], NamedSharding(mesh, PartitionSpec("data")))
    assert int(checksum([sharded])) == of([TREE["float"]])
