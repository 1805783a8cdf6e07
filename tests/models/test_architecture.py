import pytest

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.rope_config import Llama3Rope, Rope

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_defaults_of_missing_fields(tiny_config):
    config = tiny_config()
    for name in ("num_key_value_heads", "rms_norm_eps", "tie_word_embeddings"):
        del config[name]
    architecture = Architecture.from_hf(config)
    assert architecture.num_kv_heads == 4
    assert architecture.head_dim == 8
    assert architecture.norm_eps == 1e-6
    assert not architecture.tied
    assert architecture.rope == Rope(10_000.0)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
    ],
    ids=["version 4", "version 4 before rope_type", "version 5"],
)
def test_spellings_of_rope_are_one(tiny_config, rope):
    architecture = Architecture.from_hf(tiny_config(**rope))
    assert architecture.rope == Rope(5e5, scaling=Llama3Rope(8.0, 1.0, 4.0, 64))


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_bias": True, "head_dim": 16, "eos_token_id": [2, 3], "pad_token_id": 4},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
    ],
)
def test_to_hf_and_back(tiny_config, changes):
    architecture = Architecture.from_hf(tiny_config(**changes))
    assert Architecture.from_hf(architecture.to_hf()) == architecture
    hash(architecture)  # a static argument of jit


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "gemma2"}, "'gemma3_text', 'smollm3', got 'gemma2'"),
        ({"hidden_act": "gelu"}, "`hidden_act` must be 'silu', got 'gelu'"),
        ({"pretraining_tp": 2}, "`pretraining_tp` must be 1, got 2"),
        ({"attention_dropout": 0.1}, "`attention_dropout` must be 0.0, got 0.1"),
        ({"quantization_config": {"bits": 4}}, "`quantization_config`"),
        ({"query_scale": 0.5}, "`query_scale` is not known and may change the maths, got 0.5"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ({"rope_parameters": {"rope_type": "default", "mscale": 2.0}}, "mscale"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"num_key_value_heads": 3}, "got 4 and 3"),
        ({"head_dim": 7}, "`head_dim` must be even for rotary positions, got 7"),
        ({"vocab_size": None}, "`vocab_size` must be a positive integer, got None"),
        ({"num_attention_heads": 0}, "`num_attention_heads` must be a positive integer, got 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_unsupported_fields_stop_by_name(tiny_config, changes, named):
    with pytest.raises(XTokenError) as caught:
        Architecture.from_hf(tiny_config(**changes))
    assert named in str(caught.value)


def test_all_bad_fields_are_named_at_once(tiny_config):
    with pytest.raises(XTokenError, match=r"hidden_act.*mystery"):
        Architecture.from_hf(tiny_config(hidden_act="relu", mystery=1))


def test_disagreeing_rope_sections(tiny_config):
    config = tiny_config(
        rope_scaling={"rope_type": "llama3", **LLAMA3}, rope_parameters={"rope_type": "default"}
    )
    with pytest.raises(XTokenError, match="must agree"):
        Architecture.from_hf(config)
