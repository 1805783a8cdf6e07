"""Low-rank adapters: what they compute, what is trained, and that merging changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.lora import (
    Adapters,
    add_adapters,
    is_trained_with_adapters,
    merge_adapters,
)

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PARENTS = ("query_DHE", "key_DGE", "value_DGE", "output_HED", "gate_DF", "up_DF", "down_FD")


def decoder(**changes):
    sizes = {"hidden_size": 16, "ffn_size": 24, "num_heads": 4, "num_kv_heads": 2, "head_dim": 6}
    options = {"vocab_size": 40, "num_layers": 2, "tied": True, **sizes, **changes}
    return Decoder(Architecture(**options), rngs=nnx.Rngs(0))


def tokens():
    ids_BS = np.random.default_rng(0).integers(0, 40, (2, 7)).astype(np.int32)
    positions_BS = np.broadcast_to(np.arange(7, dtype=np.int32), (2, 7))
    values = {"ids_BS": ids_BS, "positions_BS": positions_BS, "segment_ids_BS": 1 + 0 * ids_BS}
    return jax.tree.map(jnp.asarray, values)


def with_random_adapters(model, targets=TARGETS, rank=3, alpha=6.0):
    add_adapters(model, Adapters(rank, alpha, targets))
    draw = np.random.default_rng(1)
    for pair in model.layers.adapters.values():
        for parameter in pair.values():
            values = 0.3 * draw.normal(size=parameter.get_value().shape)
            parameter.set_value(jnp.asarray(values, jnp.float32))
    return model


def test_fresh_adapters_change_nothing():
    model = decoder()
    before = model(**tokens())
    add_adapters(model, Adapters(4, 8.0, TARGETS), seed=3)
    np.testing.assert_array_equal(model(**tokens()), before)
    down = model.layers.adapters["output_HED"]["down_HER"].get_value()
    assert down.shape == (2, 4, 6, 4)
    assert 0.1 < np.abs(down).max() < 1 / np.sqrt(24)  # one over the root of its inputs


@pytest.mark.parametrize("target", range(7), ids=TARGETS)
def test_an_adapter_is_a_change_of_its_matrix(target):
    adapted = with_random_adapters(decoder(), TARGETS[target : target + 1])
    changed = decoder()
    matrix = getattr(changed.layers, PARENTS[target])
    down, up = (p.get_value() for p in adapted.layers.adapters[PARENTS[target]].values())
    values = np.array(matrix.get_value())
    for layer in range(2):
        product = np.asarray(down[layer]).reshape(-1, 3) @ np.asarray(up[layer]).reshape(3, -1)
        values[layer] += 2.0 * product.reshape(values[layer].shape)  # alpha over rank
    matrix.set_value(jnp.asarray(values))
    assert np.abs(adapted(**tokens()) - decoder()(**tokens())).max() > 1e-3
    np.testing.assert_allclose(adapted(**tokens()), changed(**tokens()), rtol=1e-4, atol=1e-5)


def test_merging_keeps_what_the_model_computes():
    model = with_random_adapters(decoder())
    before = model(**tokens())
    merge_adapters(model)
    assert model.layers.adapters is None
    assert not [v for _, v in nnx.iter_graph(model) if isinstance(v, nnx.LoRAParam)]
    np.testing.assert_allclose(model(**tokens()), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("embeddings", [False, True])
def test_only_adapters_are_trained_unless_embeddings_are_asked_for(embeddings):
    model = with_random_adapters(decoder(tied=False), ("q_proj", "down_proj"))
    graph, trained, frozen = nnx.split(model, is_trained_with_adapters(embeddings), ...)
    names = {path[-1] for path, _ in nnx.to_flat_state(trained)}
    vocabulary = {"embedding_VD", "lm_head_VD"} if embeddings else set()
    assert names == {"down_DR", "up_RHE", "down_FR", "up_RD"} | vocabulary
    whole = nnx.merge(graph, trained, frozen)
    np.testing.assert_array_equal(whole(**tokens()), model(**tokens()))


def test_adapters_are_sharded_as_their_matrix_is(mesh_222):
    model = decoder()
    add_adapters(model, Adapters(2, 2.0, ("q_proj", "down_proj")), mesh=mesh_222)
    specs = {
        name: parameter.get_value().sharding.spec
        for pair in model.layers.adapters.values()
        for name, parameter in pair.items()
    }
    P = jax.sharding.PartitionSpec
    assert specs == {
        "down_DR": P(None, "fsdp", None),
        "up_RHE": P(None, None, "tensor", None),
        "down_FR": P(None, "tensor", None),
        "up_RD": P(None, None, "fsdp"),
    }
    one_device = decoder()
    add_adapters(one_device, Adapters(2, 2.0, ("q_proj",)))
    np.testing.assert_array_equal(
        model.layers.adapters["query_DHE"]["down_DR"].get_value(),
        one_device.layers.adapters["query_DHE"]["down_DR"].get_value(),
    )
