import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.sharding import (
    batch_sharding,
    padded_vocab_size,
    parameter_spec,
    state_shardings,
)

ONE_TWO_TWO = {"data": 1, "fsdp": 2, "tensor": 2}
SPECS = {
    "embedding_VD": ("tensor", "fsdp"),
    "lm_head_VD": ("tensor", "fsdp"),
    "final_norm_D": (None,),
    "layers.attention_norm_D": (None, None),
    "layers.ffn_norm_D": (None, None),
    "layers.query_DHE": (None, "fsdp", "tensor", None),
    "layers.key_DGE": (None, "fsdp", "tensor", None),
    "layers.value_DGE": (None, "fsdp", "tensor", None),
    "layers.output_HED": (None, "tensor", None, "fsdp"),
    "layers.query_bias_HE": (None, "tensor", None),
    "layers.key_bias_GE": (None, "tensor", None),
    "layers.value_bias_GE": (None, "tensor", None),
    "layers.output_bias_D": (None, None),
    "layers.gate_DF": (None, "fsdp", "tensor"),
    "layers.up_DF": (None, "fsdp", "tensor"),
    "layers.down_FD": (None, "tensor", "fsdp"),
    "layers.gate_bias_F": (None, "tensor"),
    "layers.up_bias_F": (None, "tensor"),
    "layers.down_bias_D": (None, None),
}
EVERY_PARAMETER = {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}


GEMMA_SPECS = {
    "layers.query_norm_E": (None, None),
    "layers.key_norm_E": (None, None),
    "layers.attention_out_norm_D": (None, None),
    "layers.ffn_out_norm_D": (None, None),
}
GEMMA = {"model_type": "gemma3_text", "head_dim": 8, "sliding_window": 5}


def specs_by_name(shardings):
    """Specs by dotted name, with Variables' own "value" left out."""
    leaves = jax.tree_util.tree_leaves_with_path(
        shardings, is_leaf=lambda leaf: isinstance(leaf, NamedSharding)
    )
    return {
        ".".join(key for entry in path if (key := getattr(entry, "key", "value")) != "value"): spec
        for path, sharding in leaves
        if (spec := sharding.spec) is not None
    }


def test_the_spec_of_every_parameter(tiny_decoder, mesh_222):
    model = tiny_decoder(options={"padded_vocab_size": 66}, **EVERY_PARAMETER)
    found = specs_by_name(state_shardings(nnx.state(model), mesh_222))
    assert found == {name: PartitionSpec(*spec) for name, spec in SPECS.items()}
    found = specs_by_name(
        state_shardings(nnx.state(tiny_decoder(vocab_size=66, **GEMMA)), mesh_222)
    )
    assert found.keys() - SPECS.keys() == GEMMA_SPECS.keys()
    assert all(found[name] == PartitionSpec(*spec) for name, spec in GEMMA_SPECS.items())


def test_optimizer_state_is_sharded_like_parameters(tiny_decoder, mesh_222):
    state = nnx.state(tiny_decoder(options={"padded_vocab_size": 66}))
    adam_state = state_shardings(jax.eval_shape(optax.adam(1e-3).init, state), mesh_222)[0]
    assert adam_state.mu == state_shardings(state, mesh_222)
    assert adam_state.nu == state_shardings(state, mesh_222)
    assert adam_state.count.spec == PartitionSpec()


def test_axes_that_do_not_divide():
    spec = parameter_spec(("layers", "query_DHE"), (3, 32, 9, 8), ONE_TWO_TWO)
    assert spec == PartitionSpec(None, "fsdp", None, None)  # nine heads: replicated
    with pytest.raises(XTokenError, match=r"`layers.gate_DF`: mesh axis 'tensor' must divide"):
        parameter_spec(("layers", "gate_DF"), (3, 32, 49), ONE_TWO_TWO)
    with pytest.raises(XTokenError, match="dimension D, got 2 devices and size 31"):
        parameter_spec(("embedding_VD",), (64, 31), ONE_TWO_TWO)


def test_vocabulary_padding(mesh_222):
    assert padded_vocab_size(65, None) == 65
    assert padded_vocab_size(65, mesh_222) == 66
    assert padded_vocab_size(66, mesh_222) == 66


@pytest.mark.parametrize(
    "changes",
    [
        EVERY_PARAMETER,
        # One key-value head: replicated over `tensor`.
        GEMMA | {"num_key_value_heads": 1, "sliding_window_pattern": 2},
    ],
    ids=["llama", "gemma3"],
)
def test_sharded_equals_unsharded(tiny_decoder, batch, mesh_222, changes):
    model = tiny_decoder(options={"padded_vocab_size": 66}, **changes)
    graph, state = nnx.split(model)

    @jax.value_and_grad
    def loss(state, ids_BS, positions_BS, segment_ids_BS):
        model = nnx.merge(graph, state)
        hidden_BSD = model(ids_BS, positions_BS, segment_ids_BS)
        logits_BSV = jnp.einsum("BSD,VD->BSV", hidden_BSD, model.unembedding_VD)
        return jnp.square(jax.nn.log_softmax(logits_BSV)).mean()

    value, gradient = jax.jit(loss)(state, *batch)
    shardings = state_shardings(state, mesh_222)
    with jax.set_mesh(mesh_222):
        sharded = jax.device_put((state, batch), (shardings, batch_sharding(mesh_222)))
        sharded_value, sharded_gradient = jax.jit(loss)(sharded[0], *sharded[1])
    assert len(sharded[0]["layers"]["gate_DF"].get_value().sharding.device_set) == 8
    np.testing.assert_allclose(value, sharded_value, rtol=1e-6)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * np.abs(x).max()),
        gradient,
        jax.device_get(sharded_gradient),
    )
