import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.weights import load_model


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


@pytest.mark.large
def test_real_gemma3_equals_transformers(asset, torch, logits_of):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = asset("gemma3-270m")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer.tokenize("201") == ["2", "0", "1"]
    assert tokenizer.tokenize("Hundreds") == ["Hundreds"]
    text = "The capital of Japan is Tokyo, a city of many millions of people, and 201 is a number."
    ids_BS = np.asarray(tokenizer([text])["input_ids"])
    positions_BS = np.arange(ids_BS.shape[1])[None]
    with torch.no_grad():
        reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        expected_BSV = reference(torch.tensor(ids_BS)).logits.numpy()
    logits_BSV = logits_of(load_model(directory), ids_BS, positions_BS, np.ones_like(ids_BS))
    np.testing.assert_allclose(logits_BSV, expected_BSV, rtol=1e-4, atol=1e-4)
    # Both could be wrong alike: a wrong norm or scale in the files would not read English.
    log_probs_SV = jax.nn.log_softmax(logits_BSV[0, :-1])
    assert -log_probs_SV[np.arange(ids_BS.shape[1] - 1), ids_BS[0, 1:]].mean() < np.log(100)


def sensitivity_ST(model, segment_ids_S):
    """How much the hidden state at S changes with the embedding read at T."""
    num_positions = len(segment_ids_S)
    ids_BS = jnp.arange(num_positions)[None]  # every position reads a row of its own
    graph, state = nnx.split(model)

    @jax.jit
    @jax.jacrev
    def jacobian(state):
        return nnx.merge(graph, state)(ids_BS, ids_BS, segment_ids_S[None])[0].sum(axis=-1)

    jacobian_SVD = jacobian(state)["embedding_VD"].get_value()
    return np.abs(jacobian_SVD).sum(axis=-1)[:, :num_positions]


def test_causality_and_segments_by_gradient(tiny_decoder):
    segment_ids_S = jnp.asarray([1, 1, 1, 2, 2, 0, 0])
    seen_ST = sensitivity_ST(tiny_decoder(), segment_ids_S) > 0
    causal_ST = np.tril(np.ones((7, 7), bool))
    together_ST = np.equal.outer(segment_ids_S, segment_ids_S)
    np.testing.assert_array_equal(seen_ST, causal_ST & together_ST)


def test_windows_by_gradient(tiny_decoder):
    segment_ids_S = jnp.asarray([1, 1, 1, 1, 1, 1, 1, 2, 2, 0, 0])
    model = tiny_decoder(model_type="mistral", sliding_window=3, num_hidden_layers=2)
    seen_ST = sensitivity_ST(model, segment_ids_S) > 0
    distance_ST = np.subtract.outer(np.arange(11), np.arange(11))
    reachable_ST = (distance_ST >= 0) & (distance_ST <= 2 * (3 - 1))  # two layers, two steps each
    together_ST = np.equal.outer(segment_ids_S, segment_ids_S)
    np.testing.assert_array_equal(seen_ST, reachable_ST & together_ST)


@pytest.mark.parametrize("remat", [True, "dots"])
def test_remat_changes_memory_and_no_gradient(tiny_decoder, batch, remat):
    plain, plain_bytes = gradient_and_temporary_bytes(tiny_decoder(), batch)
    saving, saving_bytes = gradient_and_temporary_bytes(
        tiny_decoder(options={"remat": remat}), batch
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4 * np.abs(x).max()),
        plain,
        saving,
    )
    assert saving_bytes < 0.8 * plain_bytes


def gradient_and_temporary_bytes(model, batch):
    graph, state = nnx.split(model)
    loss = jax.grad(lambda state: jnp.square(nnx.merge(graph, state)(*batch)).sum())
    compiled = jax.jit(loss).lower(state).compile()
    return compiled(state), compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("changes", [{}, {"model_type": "gemma3_text", "sliding_window": 5}])
def test_program_does_not_grow_with_depth(tiny_decoder, batch, changes):
    """Not even where layers differ: of seven Gemma-3 layers, the sixth is global."""

    def num_lines(num_layers):
        graph, state = nnx.split(tiny_decoder(num_hidden_layers=num_layers, **changes))
        forward = jax.jit(lambda state: nnx.merge(graph, state)(*batch))
        return forward.lower(state).as_text().count("\n")

    assert num_lines(7) == num_lines(12)


def test_compute_and_parameter_dtypes(tiny_decoder, batch):
    run = nnx.jit(lambda model: model(*batch))
    exact_BSD = run(tiny_decoder())
    model = tiny_decoder(options={"dtype": jnp.bfloat16})
    hidden_BSD = run(model)
    assert hidden_BSD.dtype == jnp.bfloat16
    assert model.unembedding_VD.dtype == jnp.float32
    error = np.abs(hidden_BSD.astype(jnp.float32) - exact_BSD)
    assert 1e-4 < np.sqrt(np.mean(error**2) / np.mean(exact_BSD**2)) < 3e-2
    small = tiny_decoder(options={"param_dtype": jnp.bfloat16})
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(small))} == {jnp.dtype("bfloat16")}


def test_random_start(tiny_config):
    architecture = Architecture.from_hf(tiny_config(tie_word_embeddings=False))
    model = nnx.jit(lambda: Decoder(architecture, rngs=nnx.Rngs(0), padded_vocab_size=72))()
    assert model.vocab_size == 65
    assert model.embedding_VD.shape == model.unembedding_VD.shape == (72, 32)
    for table_VD in (model.embedding_VD[...], model.unembedding_VD):
        assert not np.any(table_VD[65:])
        assert np.std(table_VD[:65]) == pytest.approx(architecture.initializer_range, rel=0.1)
    assert np.any(model.embedding_VD[...] != model.unembedding_VD)


def test_no_rows_give_soft_capped_logits(tiny_decoder):
    model = tiny_decoder(model_type="gemma3_text", final_logit_softcapping=30.0)
    with pytest.raises(XTokenError, match="`final_logit_softcapping` must be None where losses"):
        _ = model.unembedding_VD


def test_bad_options(tiny_decoder):
    with pytest.raises(ValueError, match="`remat` must be a boolean or one of 'none', 'full'"):
        tiny_decoder(options={"remat": "some"})
    with pytest.raises(ValueError, match="`padded_vocab_size` must be at least 65, got 64"):
        tiny_decoder(options={"padded_vocab_size": 64})
