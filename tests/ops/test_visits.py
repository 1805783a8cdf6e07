"""Walks over some positions: what they visit, what they return."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xtoken_jax.ops.visits import visit_blocks


@pytest.mark.parametrize(
    ("mask", "blocks"),
    [
        ([[0, 0, 1, 0, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0]], 2),
        ([[1] * 7, [0] * 7], 4),
        ([[0] * 7, [0] * 7], 0),
    ],
)
def test_it_visits_the_mask_and_no_block_more(mask, blocks):
    mask_BS = jnp.array(mask, bool)
    values_BS = jnp.arange(14.0).reshape(2, 7)

    def block(count, arrays):
        value_N, pair_N2 = arrays
        assert value_N.shape == (4,)
        return count + 1, (value_N + 1, pair_N2 * 2)

    pairs_BS2 = jnp.stack([values_BS, -values_BS], axis=-1)
    count, outputs = jax.jit(
        lambda *arrays: visit_blocks(block, jnp.zeros(()), arrays, mask_BS, block_tokens=4)
    )(values_BS, pairs_BS2)
    assert count == blocks
    np.testing.assert_array_equal(outputs[0], np.where(mask_BS, values_BS + 1, 0))
    np.testing.assert_array_equal(outputs[1], np.where(mask_BS[..., None], pairs_BS2 * 2, 0))
