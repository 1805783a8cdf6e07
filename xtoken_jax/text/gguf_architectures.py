"""What a GGUF file's architecture means: its tensors' names, its hyperparameters, its config.

An architecture that is not in the table is refused, and so is every hyperparameter that the
architecture's row does not list.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xtoken_jax.errors import XTokenError

OUTER_NAMES: Mapping[str, str] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_COMMON_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_COMMON_HYPERPARAMETERS = frozenset(
    {
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "rope.freq_base",
        "rope.dimension_count",
        "vocab_size",
    }
)


@dataclass(frozen=True, kw_only=True)
class GgufArchitecture:
    """How the files of one architecture are read.

    Attributes:
        block_names: A layer's tensors, llama.cpp's name to Hugging Face's.
        hyperparameters: Every one that the conversion understands. Another (rope scaling, experts,
            ...) would change what the model computes, so it is refused, never dropped.
        own_config: From the hyperparameters, the fields of `config.json` that only this
            architecture has.
        pairs_are_neighbours: Whether q and k rows are in llama.cpp's order for rotating neighbours.
        norms_count_from_zero: Whether the Hugging Face model multiplies by 1 + w; the file has
            1 + w itself.
        tokenizer: `tokenizer.ggml.model` and `tokenizer.ggml.pre`.
    """

    block_names: Mapping[str, str]
    hyperparameters: frozenset[str]
    own_config: Callable[[Mapping[str, Any]], dict[str, Any]]
    pairs_are_neighbours: bool
    norms_count_from_zero: bool
    tokenizer: tuple[str, str]


def _llama_config(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": _shortest(given.get("rope.freq_base", 10_000.0)),
    }


def _gemma3_config(given: Mapping[str, Any]) -> dict[str, Any]:
    # The file has no word on the last three: llama.cpp's program sets them (llama-model.cpp,
    # LLM_ARCH_GEMMA3). The query scale is another for the 27B model alone, which has rope scaling
    # and is refused for it.
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "rope_theta": _shortest(given["rope.freq_base"]),
        "sliding_window": given["attention.sliding_window"],
        "layer_types": [
            "full_attention" if layer % 6 == 5 else "sliding_attention"
            for layer in range(given["block_count"])
        ],
        "rope_local_base_freq": 10_000.0,
        "query_pre_attn_scalar": given["attention.key_length"],
    }


ARCHITECTURES: Mapping[str, GgufArchitecture] = {
    "llama": GgufArchitecture(
        block_names={**_COMMON_BLOCK_NAMES, "ffn_norm": "post_attention_layernorm"},
        hyperparameters=_COMMON_HYPERPARAMETERS,
        own_config=_llama_config,
        pairs_are_neighbours=True,
        norms_count_from_zero=False,
        tokenizer=("gpt2", "smollm"),
    ),
    "gemma3": GgufArchitecture(
        block_names={
            **_COMMON_BLOCK_NAMES,
            "attn_q_norm": "self_attn.q_norm",
            "attn_k_norm": "self_attn.k_norm",
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        hyperparameters=_COMMON_HYPERPARAMETERS | {"attention.sliding_window"},
        own_config=_gemma3_config,
        pairs_are_neighbours=False,
        norms_count_from_zero=True,
        tokenizer=("llama", "default"),
    ),
}


def architecture_of(fields: Mapping[str, Any]) -> GgufArchitecture:
    """The row of a file.

    Raises:
        XTokenError: there is none for its architecture.
    """
    name = fields.get("general.architecture", "")
    if name not in ARCHITECTURES:
        known = " or ".join(map(repr, ARCHITECTURES))
        raise XTokenError(f"GGUF `general.architecture` must be {known}, got {name!r}")
    return ARCHITECTURES[name]


def read_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The Hugging Face `config.json` of a GGUF file's fields, without what the weights decide.

    Raises:
        XTokenError: another architecture, a missing or an unknown hyperparameter.
    """
    architecture = architecture_of(fields)
    prefix = f"{fields['general.architecture']}."
    given = {k.removeprefix(prefix): v for k, v in fields.items() if k.startswith(prefix)}
    if unknown := sorted(set(given) - architecture.hyperparameters):
        raise XTokenError(f"GGUF hyperparameters that are not supported: {', '.join(unknown)}")
    try:
        head_dim = given["embedding_length"] // given["attention.head_count"]
        head_dim = given.get("attention.key_length", head_dim)
        _require_whole_heads(given, head_dim)
        return {
            **architecture.own_config(given),
            "hidden_size": given["embedding_length"],
            "intermediate_size": given["feed_forward_length"],
            "num_hidden_layers": given["block_count"],
            "num_attention_heads": given["attention.head_count"],
            "num_key_value_heads": given["attention.head_count_kv"],
            "head_dim": head_dim,
            "max_position_embeddings": given["context_length"],
            "rms_norm_eps": _shortest(given["attention.layer_norm_rms_epsilon"]),
            "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
            "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
            "pad_token_id": fields.get(
                "tokenizer.ggml.padding_token_id", fields["tokenizer.ggml.eos_token_id"]
            ),
            "dtype": "float32",
        }
    except KeyError as error:
        raise XTokenError(f"GGUF field {error} is missing") from error


def _require_whole_heads(given: Mapping[str, Any], head_dim: int) -> None:
    rotated = given.get("rope.dimension_count", head_dim)
    value_dim = given.get("attention.value_length", head_dim)
    if rotated != head_dim or value_dim != head_dim:
        raise XTokenError(
            f"GGUF `rope.dimension_count` and `attention.value_length` must equal the head "
            f"dimension {head_dim}, got {rotated} and {value_dim}"
        )


def _shortest(value: float) -> float:
    """The shortest decimal that is the same float32: 9.999999747e-06 was written as 1e-05."""
    return float(str(np.float32(value)))
