"""What the model families of Hugging Face have of their own in `config.json`, as one table.

Every field of a config falls in one of three groups: those that are read, those that the decoder
supports at one value only (`SUPPORTED_VALUES`), and those that cannot change a forward pass
(`HARMLESS`). A field in none of the groups stops the load by name, because a field that is ignored
in silence is a model that is wrong in silence.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        causal_lm: The class in transformers that loads an export.
        switches: Fields of `Architecture` that are the same in every model of the family.
        fields: config.json's name -> ours, for fields besides `COMMON_FIELDS`.
        defaults: transformers' values of fields that a config.json may leave out.
        windows: Which layers look no further back than `sliding_window`: none of them, all of them
            when there is one, or those that `layer_types` names.
        partial_rotary: Whether `partial_rotary_factor` is honoured.
        supported: Further fields that the decoder supports at these values only.
        harmless: Further fields that cannot change a forward pass.

    Source: transformers' configuration_*.py and modeling_*.py, version 5.
    """

    causal_lm: str
    switches: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    windows: Literal["none", "every layer", "layer types"] = "none"
    partial_rotary: bool = False
    supported: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    harmless: frozenset[str] = frozenset()


_BIASES = {"attention_bias": "attention_bias", "mlp_bias": "mlp_bias"}
_QWEN_DEFAULTS = {
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "max_position_embeddings": 32768,
    "bos_token_id": None,
    "eos_token_id": None,
}

FAMILIES: dict[str, Family] = {
    "llama": Family(
        "LlamaForCausalLM",
        fields=_BIASES,
        supported={"pretraining_tp": (1, None)},  # >1 changes the order of summation, on purpose
    ),
    "mistral": Family(
        "MistralForCausalLM",
        defaults={
            "sliding_window": 4096,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
        },
        windows="every layer",
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        switches={"qkv_bias": True},
        defaults=_QWEN_DEFAULTS,
        windows="layer types",
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        switches={"qk_norm": True},
        fields={"attention_bias": "attention_bias"},
        defaults=_QWEN_DEFAULTS | {"head_dim": 128},
        windows="layer types",
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        defaults={
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
            "eos_token_id": 32000,
            "pad_token_id": 32000,
        },
        windows="every layer",
        partial_rotary=True,
        supported={
            "resid_pdrop": (0.0, None),
            "embd_pdrop": (0.0, None),
            "lm_head_bias": (False, None),
            "full_attn_mod": (1, None),
            "interpolate_factor": (1, None),
        },
        # It names code beside the weights; the maths is that of the class in transformers.
        harmless=frozenset({"auto_map"}),
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        switches={
            "qk_norm": True,
            "sandwich_norm": True,
            "zero_centred_norm": True,
            "scaled_embedding": True,
            "activation": "gelu_pytorch_tanh",
        },
        fields={
            "attention_bias": "attention_bias",
            "query_pre_attn_scalar": "query_pre_attn_scalar",
            "attn_logit_softcapping": "attention_softcap",
            "final_logit_softcapping": "logit_softcap",
        },
        defaults={
            "vocab_size": 262_208,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 131_072,
            "sliding_window": 4096,
            "query_pre_attn_scalar": 256,
            "tie_word_embeddings": True,
            "bos_token_id": 2,
            "eos_token_id": 1,
            "pad_token_id": 0,
        },
        windows="layer types",
        supported={
            "hidden_activation": ("gelu_pytorch_tanh",),
            "use_bidirectional_attention": (False, None),
        },
        harmless=frozenset({"cache_implementation"}),
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        fields=_BIASES,
        defaults={
            "rope_theta": 2_000_000.0,
            "num_key_value_heads": 4,
            "use_sliding_window": False,
            "no_rope_layer_interval": 4,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
            "bos_token_id": 128000,
            "eos_token_id": 128001,
            "pad_token_id": 128004,
        },
        windows="layer types",
        harmless=frozenset({"pretraining_tp", "max_window_layers"}),  # written, never read
    ),
}

# config.json's name -> ours, for fields with a default in every family.
COMMON_FIELDS = {
    "tie_word_embeddings": "tied",
    "rms_norm_eps": "norm_eps",
    "max_position_embeddings": "max_position_embeddings",
    "initializer_range": "initializer_range",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "pad_token_id",
}

REQUIRED_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
READ = frozenset(
    {*COMMON_FIELDS, *REQUIRED_SIZES, "num_key_value_heads", "head_dim", "model_type"}
    | {"rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor"}
)
WINDOW_FIELDS = {
    "none": frozenset(),
    "every layer": frozenset({"sliding_window"}),
    "layer types": frozenset({"sliding_window", "layer_types"}),
}

SUPPORTED_VALUES: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "attention_dropout": (0.0, None),
    "rope_interleaved": (False, None),  # SmolLM2 writes it; True pairs neighbouring dimensions
    "sliding_window": (None,),
    "use_sliding_window": (False, None),
    "layer_types": (None,),
    "quantization_config": (None,),
    "is_decoder": (True, None),
    "is_encoder_decoder": (False, None),
    "is_causal": (True, None),
    "add_cross_attention": (False, None),
}

HARMLESS = frozenset(
    {
        # where the file comes from
        "_name_or_path",
        "architectures",
        "transformers_version",
        "transformers.js_config",
        "is_llama_config",
        # how the weights are stored and what the forward pass returns
        "torch_dtype",
        "dtype",
        "use_cache",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
        "chunk_size_feed_forward",
        # heads other than the language-model head
        "id2label",
        "label2id",
        "problem_type",
    }
)
# Fields that only some families have, and only they read.
OWN_FIELDS = {
    "qwen2": frozenset({"use_sliding_window", "max_window_layers"}),
    "qwen3": frozenset({"use_sliding_window", "max_window_layers"}),
    "phi3": frozenset({"original_max_position_embeddings"}),
    "gemma3_text": frozenset(
        {"rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"}
    ),
    "smollm3": frozenset({"use_sliding_window", "no_rope_layers", "no_rope_layer_interval"}),
}
