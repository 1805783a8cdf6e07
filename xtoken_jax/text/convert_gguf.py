"""A llama-architecture GGUF file -> a Hugging Face model directory.

GGUF is llama.cpp's container: weights (often quantised), hyperparameters and tokenizer in one
file. The `gguf` package reads the container and dequantises; names, the layout of the q and k rows
and the tokenizer are turned back here. NumPy only, no PyTorch.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from xtoken_jax.errors import XTokenError
from xtoken_jax.text.convert_tokenizer import write_tokenizer

CONVERTER_VERSION = 1  # raise it when the files written here change: caches then convert anew

_OUTER_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Every hyperparameter that the conversion understands. One that is not here (rope scaling, experts,
# sliding windows, ...) would change what the model computes, so it is refused, never dropped.
_HYPERPARAMETERS = {
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
_CONTROL_TOKEN = 3  # tokenizer.ggml.token_type


def convert_gguf(source: Path, out: Path) -> None:
    """Write config, float32 weights, tokenizer and generation config into the directory `out`.

    Weights are what the quantised file holds, dequantised: they are not the original float ones.

    Raises:
        XTokenError: `source` is not GGUF, or not of the llama architecture, or has a tensor,
            hyperparameter or pre-tokenizer that the conversion does not know.
    """
    try:
        reader = GGUFReader(source)
    except (ValueError, OSError, IndexError) as error:
        raise XTokenError(f"`{source}` must be a GGUF file, got: {error}") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = read_config(fields)
    weights = read_weights(reader, config)
    config["tie_word_embeddings"] = "lm_head.weight" not in weights
    # The embedding may be padded past the tokenizer's tokens, so its rows count, not the tokens.
    config["vocab_size"] = weights["model.embed_tokens.weight"].shape[0]

    _write_tokenizer(fields, config, out)  # first: it refuses before anything is written
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    _write_json(out / "config.json", config)
    # safetensors makes its file readable by the owner alone; a shared cache needs the usual mode.
    shutil.copymode(out / "config.json", out / "model.safetensors")
    special_ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    _write_json(out / "generation_config.json", {key: config[key] for key in special_ids})


def read_config(fields: dict[str, Any]) -> dict[str, Any]:
    """The Hugging Face `config.json` of a GGUF file's fields, without what the weights decide.

    Raises:
        XTokenError: another architecture, a missing or an unknown hyperparameter.
    """
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise XTokenError(f"GGUF `general.architecture` must be 'llama', got {architecture!r}")
    given = {k.removeprefix("llama."): v for k, v in fields.items() if k.startswith("llama.")}
    if unknown := sorted(set(given) - _HYPERPARAMETERS):
        raise XTokenError(f"GGUF hyperparameters that are not supported: {', '.join(unknown)}")
    try:
        head_dim = given["embedding_length"] // given["attention.head_count"]
        _require_whole_heads(given, given.get("attention.key_length", head_dim))
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "hidden_size": given["embedding_length"],
            "intermediate_size": given["feed_forward_length"],
            "num_hidden_layers": given["block_count"],
            "num_attention_heads": given["attention.head_count"],
            "num_key_value_heads": given["attention.head_count_kv"],
            "head_dim": given.get("attention.key_length", head_dim),
            "max_position_embeddings": given["context_length"],
            "rms_norm_eps": _shortest(given["attention.layer_norm_rms_epsilon"]),
            "rope_theta": _shortest(given.get("rope.freq_base", 10_000.0)),
            "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
            "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
            "pad_token_id": fields.get(
                "tokenizer.ggml.padding_token_id", fields["tokenizer.ggml.eos_token_id"]
            ),
            "dtype": "float32",
        }
    except KeyError as error:
        raise XTokenError(f"GGUF field {error} is missing") from error


def read_weights(reader: GGUFReader, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """All tensors by their Hugging Face names, float32, `[out, in]`.

    Raises:
        XTokenError: tensors of unknown names; all of them are listed.
    """
    weights, unknown = {}, []
    for tensor in reader.tensors:
        name = _translate(tensor.name)
        if name is None:
            unknown.append(tensor.name)
            continue
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        weight = weight.reshape([int(size) for size in reversed(tensor.shape)])
        if name.endswith("q_proj.weight"):
            weight = unpermute(weight, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            weight = unpermute(weight, config["num_key_value_heads"])
        weights[name] = np.ascontiguousarray(weight)
    if unknown:
        raise XTokenError(f"GGUF tensors that are not supported: {', '.join(unknown)}")
    if "model.embed_tokens.weight" not in weights:
        raise XTokenError("GGUF tensor token_embd.weight is missing")
    return weights


def unpermute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows of a q or k projection from llama.cpp's order to Hugging Face's.

    llama.cpp rotates neighbouring pairs (0,1), (2,3), ...; Hugging Face rotates dimension i with
    i + head_dim / 2. Within each head the pairs are pulled apart into two halves again.
    """
    pairs = weight.reshape(num_heads, -1, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _translate(name: str) -> str | None:
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        inner = _BLOCK_NAMES.get(match[2])
        return inner and f"model.layers.{match[1]}.{inner}.weight"
    outer = _OUTER_NAMES.get(name.removesuffix(".weight"))
    return outer and f"{outer}.weight"


def _require_whole_heads(given: dict[str, Any], head_dim: int) -> None:
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


def _write_tokenizer(fields: dict[str, Any], config: dict[str, Any], out: Path) -> None:
    kind = (fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise XTokenError(
            f"GGUF tokenizer must be byte-level BPE cut as SmolLM's ('gpt2', 'smollm'), got {kind}"
        )
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"]
    controls = [t for t, kind in zip(tokens, types, strict=True) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in controls]
    )
    unk_id = fields.get("tokenizer.ggml.unknown_token_id")
    write_tokenizer(
        tokenizer,
        out,
        bos=tokens[config["bos_token_id"]],
        eos=tokens[config["eos_token_id"]],
        pad=tokens[config["pad_token_id"]],
        unk=None if unk_id is None else tokens[unk_id],
        max_length=config["max_position_embeddings"],
        chat_template=fields.get("tokenizer.chat_template"),
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
