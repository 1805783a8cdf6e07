import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.weights import load_model

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,  # slow, middle and fast frequencies all occur with 64 positions
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False, "attention_bias": True},
        {"mlp_bias": True, "num_key_value_heads": 4},
        {"num_key_value_heads": 1, "head_dim": 16, "rms_norm_eps": 1e-2},
        {"rope_parameters": LLAMA3_ROPE, "head_dim": 24},
    ],
    ids=["tied", "untied, attention bias", "mlp bias, all kv heads", "one kv head", "llama3 rope"],
)
def test_logits_equal_transformers(saved_hf_model, torch, logits_of, tiny_config, changes):
    reference, directory = saved_hf_model(tiny_config(**changes))
    ids_BS = np.random.default_rng(1).integers(0, 65, (2, 130))
    positions_BS = np.broadcast_to(np.arange(130)[None], ids_BS.shape)
    with torch.no_grad():
        expected_BSV = reference(torch.tensor(ids_BS)).logits.numpy()
    logits_BSV = logits_of(load_model(directory), ids_BS, positions_BS, np.ones_like(ids_BS))
    scale = np.abs(expected_BSV).max()
    np.testing.assert_allclose(logits_BSV, expected_BSV, rtol=1e-4, atol=1e-5 * scale)


def test_real_smollm2_equals_transformers(asset, torch, logits_of):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = asset("smollm2-135m")
    text = "Jane has 201 apples and gives 37 to Tom, so 201 - 37 = 164 are left."
    ids_BS = np.asarray(AutoTokenizer.from_pretrained(directory)([text])["input_ids"])
    positions_BS = np.arange(ids_BS.shape[1])[None]
    with torch.no_grad():
        reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        expected_BSV = reference(torch.tensor(ids_BS)).logits.numpy()
    logits_BSV = logits_of(load_model(directory), ids_BS, positions_BS, np.ones_like(ids_BS))
    np.testing.assert_allclose(logits_BSV, expected_BSV, rtol=1e-4, atol=1e-4)
    assert np.array_equal(logits_BSV.argmax(-1), expected_BSV.argmax(-1))


def sensitivity_ST(model, segment_ids_S):
    """How much the hidden state at S changes with the embedding read at T."""
    num_positions = len(segment_ids_S)
    ids_BS = jnp.arange(num_positions)[None]  # every position reads a row of its own
    graph, state = nnx.split(model)

    def hidden_S(state):
        return nnx.merge(graph, state)(ids_BS, ids_BS, segment_ids_S[None])[0].sum(axis=-1)

    jacobian_SVD = jax.jacrev(hidden_S)(state)["embedding_VD"].get_value()
    return np.abs(jacobian_SVD).sum(axis=-1)[:, :num_positions]


def test_causality_and_segments_by_gradient(tiny_decoder):
    segment_ids_S = jnp.asarray([1, 1, 1, 2, 2, 0, 0])
    seen_ST = sensitivity_ST(tiny_decoder(), segment_ids_S) > 0
    causal_ST = np.tril(np.ones((7, 7), bool))
    together_ST = np.equal.outer(segment_ids_S, segment_ids_S)
    np.testing.assert_array_equal(seen_ST, causal_ST & together_ST)


def test_packing_two_texts_equals_running_them_apart(tiny_decoder):
    model = tiny_decoder(rope_parameters=LLAMA3_ROPE)
    ids_S = jnp.asarray(np.random.default_rng(2).integers(0, 65, 30))
    positions_S = jnp.concatenate((jnp.arange(11), jnp.arange(19)))
    segment_ids_S = jnp.repeat(jnp.asarray([1, 2]), jnp.asarray([11, 19]), total_repeat_length=30)
    packed_BSD = model(ids_S[None], positions_S[None], segment_ids_S[None])
    for part in (slice(0, 11), slice(11, 30)):
        row = (ids_S[None, part], positions_S[None, part], jnp.ones_like(ids_S[None, part]))
        np.testing.assert_allclose(packed_BSD[:, part], model(*row), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("remat", [True, "dots"])
def test_remat_changes_memory_and_no_gradient(tiny_decoder, batch, remat):
    def gradient(model):
        return nnx.grad(lambda model: jnp.square(model(*batch)).sum())(model)

    plain = tiny_decoder()
    saving = tiny_decoder(options={"remat": remat})
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4 * np.abs(x).max()),
        gradient(plain),
        gradient(saving),
    )
    assert temporary_bytes(saving, batch) < 0.8 * temporary_bytes(plain, batch)


def temporary_bytes(model, batch):
    graph, state = nnx.split(model)
    loss = jax.grad(lambda state: jnp.square(nnx.merge(graph, state)(*batch)).sum())
    return jax.jit(loss).lower(state).compile().memory_analysis().temp_size_in_bytes


def test_program_does_not_grow_with_depth(tiny_decoder, batch):
    def num_lines(num_layers):
        graph, state = nnx.split(tiny_decoder(num_hidden_layers=num_layers))
        forward = jax.jit(lambda state: nnx.merge(graph, state)(*batch))
        return forward.lower(state).as_text().count("\n")

    assert num_lines(2) == num_lines(9)


def test_compute_and_parameter_dtypes(tiny_decoder, batch):
    exact_BSD = tiny_decoder()(*batch)
    model = tiny_decoder(options={"dtype": jnp.bfloat16})
    hidden_BSD = model(*batch)
    assert hidden_BSD.dtype == jnp.bfloat16
    assert model.unembedding_VD.dtype == jnp.float32
    error = np.abs(hidden_BSD.astype(jnp.float32) - exact_BSD)
    assert 1e-4 < np.sqrt(np.mean(error**2) / np.mean(exact_BSD**2)) < 3e-2
    small = tiny_decoder(options={"param_dtype": jnp.bfloat16})
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(small))} == {jnp.dtype("bfloat16")}


def test_random_start(tiny_config):
    architecture = Architecture.from_hf(tiny_config(tie_word_embeddings=False))
    model = Decoder(architecture, rngs=nnx.Rngs(0), padded_vocab_size=72)
    assert model.vocab_size == 65
    assert model.embedding_VD.shape == model.unembedding_VD.shape == (72, 32)
    for table_VD in (model.embedding_VD[...], model.unembedding_VD):
        assert not np.any(table_VD[65:])
        assert np.std(table_VD[:65]) == pytest.approx(architecture.initializer_range, rel=0.1)
    assert np.any(model.embedding_VD[...] != model.unembedding_VD)


def test_bad_options(tiny_decoder):
    with pytest.raises(ValueError, match="`remat` must be a boolean or one of 'none', 'full'"):
        tiny_decoder(options={"remat": "some"})
    with pytest.raises(ValueError, match="`padded_vocab_size` must be at least 65, got 64"):
        tiny_decoder(options={"padded_vocab_size": 64})
