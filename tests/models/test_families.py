"""Every family against transformers' PyTorch, on random tiny models that turn its switches."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from xtoken_jax.models.weights import load_model, save_model

NUM_POSITIONS = 70
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,  # slow, middle and fast frequencies all occur with 64 positions
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
UNTIED = {"tie_word_embeddings": False}
TIED = {"tie_word_embeddings": True}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [1.0, 2.0, 9.0],
    "partial_rotary_factor": 0.75,
}
LOCAL, GLOBAL = "sliding_attention", "full_attention"
GEMMA = {"model_type": "gemma3_text", "head_dim": 12, "query_pre_attn_scalar": 20}
CASES = {
    "llama": UNTIED | {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3_ROPE},
    "llama, linear rope": {"rope_parameters": {"rope_type": "linear", "factor": 3.0}}
    | {"num_key_value_heads": 1, "head_dim": 16, "rms_norm_eps": 1e-2},
    "mistral": UNTIED | {"model_type": "mistral", "sliding_window": None, "num_key_value_heads": 4},
    "mistral, window": TIED | {"model_type": "mistral", "sliding_window": 5},
    "qwen2": TIED | {"model_type": "qwen2"},
    "qwen2, window": UNTIED
    | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 7}
    | {"max_window_layers": 1},
    "qwen3": TIED | {"model_type": "qwen3", "head_dim": 12},
    "qwen3, bias, window": UNTIED
    | {"model_type": "qwen3", "head_dim": 8, "attention_bias": True, "use_sliding_window": True}
    | {"sliding_window": 7, "layer_types": [LOCAL, GLOBAL, LOCAL]},
    "phi3": UNTIED | {"model_type": "phi3", "sliding_window": 9, "pad_token_id": 0},
    "phi3, short text": TIED
    | {"model_type": "phi3", "rope_parameters": LONGROPE, "pad_token_id": 0}
    | {"original_max_position_embeddings": 128, "max_position_embeddings": 4096},
    "phi3, long text": UNTIED
    | {"model_type": "phi3", "rope_parameters": LONGROPE, "pad_token_id": 0}
    | {"original_max_position_embeddings": 64, "max_position_embeddings": 4096},
    "gemma3": TIED | GEMMA | {"sliding_window": 5, "layer_types": [LOCAL, GLOBAL, LOCAL]},
    "gemma3, all switches": UNTIED
    | GEMMA
    | {"sliding_window": 9, "attention_bias": True, "final_logit_softcapping": 5.0}
    | {"layer_types": [LOCAL, LOCAL, GLOBAL], "attn_logit_softcapping": 2.0}
    | {"rope_parameters": {GLOBAL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e3}}},
    "smollm3": TIED | {"model_type": "smollm3", "no_rope_layer_interval": 2, "pad_token_id": 0},
    "smollm3, window": UNTIED
    | {"model_type": "smollm3", "no_rope_layers": [0, 1, 0], "mlp_bias": True, "pad_token_id": 0}
    | {"attention_bias": True, "use_sliding_window": True, "sliding_window": 6},
}


@pytest.fixture
def ids_BS():
    return np.random.default_rng(1).integers(0, 65, (2, NUM_POSITIONS))


def one_text_per_row(ids_BS):
    """Arguments of a Decoder."""
    positions_BS = np.broadcast_to(np.arange(ids_BS.shape[1])[None], ids_BS.shape)
    return tuple(jnp.asarray(x) for x in (ids_BS, positions_BS, np.ones_like(ids_BS)))


@pytest.fixture
def torch_logits(torch):
    """A function from transformers' model, ids and config changes to logits."""

    def run(model, ids_BS, changes):
        # transformers 5 reads Gemma-3's field and never passes it on to its eager attention, which
        # computes what the field says when the caller passes it.
        softcap = changes.get("attn_logit_softcapping")
        options = {} if softcap is None else {"softcap": softcap}
        with torch.no_grad():
            return model(torch.tensor(ids_BS), **options).logits.float().numpy()

    return run


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_logits_and_export_equal_transformers(
    saved_hf_model, torch_logits, tiny_config, ids_BS, logits_of, tmp_path, changes
):
    from transformers import AutoModelForCausalLM

    softcap = changes.get("attn_logit_softcapping")
    reference, directory = saved_hf_model(
        tiny_config(**changes), attn_implementation="eager" if softcap else "sdpa"
    )
    expected_BSV = torch_logits(reference, ids_BS, changes)
    model = load_model(directory)
    logits_BSV = logits_of(model, *one_text_per_row(ids_BS))
    scale = np.abs(expected_BSV).max()
    np.testing.assert_allclose(logits_BSV, expected_BSV, rtol=1e-4, atol=1e-5 * scale)

    save_model(model, tmp_path / "export")
    again = load_model(tmp_path / "export")
    assert again.architecture == model.architecture
    jax.tree.map(np.testing.assert_array_equal, nnx.state(again), nnx.state(model))
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path / "export", attn_implementation=reference.config._attn_implementation
    )
    np.testing.assert_array_equal(torch_logits(loaded, ids_BS, changes), expected_BSV)


@pytest.mark.parametrize("case", ["phi3, long text", "gemma3"])
def test_bfloat16_is_as_near_as_transformers_bfloat16(
    saved_hf_model, torch, torch_logits, tiny_config, ids_BS, logits_of, case
):
    """Rounding moves our logits from the exact ones no further than it moves transformers'."""
    reference, directory = saved_hf_model(tiny_config(**CASES[case]))
    exact_BSV = torch_logits(reference, ids_BS, CASES[case])
    theirs_BSV = torch_logits(reference.to(torch.bfloat16), ids_BS, CASES[case])
    model = load_model(directory, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    ours_BSV = logits_of(model, *one_text_per_row(ids_BS))

    def error(logits_BSV):
        difference_BSV = np.asarray(logits_BSV, np.float32) - exact_BSV
        return np.sqrt(np.mean(difference_BSV**2) / np.mean(exact_BSV**2))

    assert 1e-4 < error(ours_BSV) < 1.2 * error(theirs_BSV)  # both are near 0.03


def test_gradient_equals_transformers(saved_hf_model, torch, tiny_config, ids_BS):
    """Of every parameter of the family that has most of them."""
    changes = CASES["gemma3"] | {"attention_bias": True, "tie_word_embeddings": False}
    reference, directory = saved_hf_model(tiny_config(**changes))
    ids_BS = np.maximum(ids_BS, 1)  # PyTorch gives the row of the padding token no gradient
    ids = torch.tensor(ids_BS)
    reference.requires_grad_(True)
    reference(ids, labels=ids).loss.backward()

    def loss(model):
        row = one_text_per_row(ids_BS)
        logits_BSV = jnp.einsum("BSD,VD->BSV", model(*row), model.unembedding_VD)
        log_probs_BSV = jax.nn.log_softmax(logits_BSV[:, :-1])
        return -jnp.take_along_axis(log_probs_BSV, row[0][:, 1:, None], axis=-1).mean()

    model = load_model(directory)
    nnx.update(model, nnx.jit(nnx.grad(loss))(model))
    save_model(model, directory)
    with safe_open(directory / "model.safetensors", framework="numpy") as file:
        for name, parameter in reference.named_parameters():
            expected = parameter.grad.numpy()
            np.testing.assert_allclose(
                file.get_tensor(name),
                expected,
                rtol=1e-3,
                atol=1e-4 * np.abs(expected).max(),
                err_msg=name,
            )


def test_vision_models_give_their_language_model(
    saved_hf_model, torch_logits, tiny_config, ids_BS, logits_of, tmp_path
):
    """Gemma-3 of 4B and more is wrapped: a `text_config`, prefixed tensors and a vision tower."""
    changes = CASES["gemma3"]
    reference, directory = saved_hf_model(tiny_config(**changes))
    tensors = load_file(directory / "model.safetensors")
    tower = {"vision_tower.post_layernorm.weight": np.ones(3, np.float32)}
    config = {
        "model_type": "gemma3",
        "text_config": tiny_config(**changes),
        "vision_config": {"model_type": "siglip_vision_model"},
        "eos_token_id": [1, 106],
    }
    for old, new in (("model.", "language_model.model."), ("model.", "model.language_model.")):
        renamed = {new + key.removeprefix(old): tensor for key, tensor in tensors.items()}
        save_file(renamed | tower, directory / "model.safetensors")
        (directory / "config.json").write_text(json.dumps(config))
        model = load_model(directory)
        assert model.architecture.model_type == "gemma3_text"
        assert model.architecture.eos_token_id == (1, 106)
    expected_BSV = torch_logits(reference, ids_BS, changes)
    logits_BSV = logits_of(model, *one_text_per_row(ids_BS))
    np.testing.assert_allclose(logits_BSV, expected_BSV, rtol=1e-4, atol=1e-4)


def test_layers_keep_their_kind_when_chosen(tiny_decoder, tmp_path):
    model = tiny_decoder(**CASES["gemma3"], num_hidden_layers=3)
    save_model(model, tmp_path / "model")
    student = load_model(tmp_path / "model", layers=[1, 2])
    assert student.architecture.local_layers == (False, True)
    only_global = load_model(tmp_path / "model", layers=[1])
    assert (only_global.architecture.window, only_global.architecture.local_layers) == (None, ())


@pytest.mark.parametrize("case", ["gemma3", "phi3, long text"])
def test_packing_two_texts_equals_running_them_apart(tiny_decoder, case):
    """Also where one text is long enough for LongRope's other list and its neighbour is not."""
    model = tiny_decoder(**CASES[case])
    lengths = (20, 66)
    ids_S = np.random.default_rng(2).integers(0, 65, sum(lengths))
    positions_S = np.concatenate([np.arange(length) for length in lengths])
    segment_ids_S = np.repeat([1, 2], lengths)
    run = nnx.jit(lambda model, *row: model(*(jnp.asarray(x)[None] for x in row))[0])
    packed_SD = run(model, ids_S, positions_S, segment_ids_S)
    for part in (slice(0, 20), slice(20, 86)):
        alone_SD = run(model, ids_S[part], positions_S[part], np.ones_like(ids_S[part]))
        np.testing.assert_allclose(packed_SD[part], alone_SD, rtol=1e-4, atol=1e-4)
