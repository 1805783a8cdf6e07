"""A GGUF file of the llama or gemma3 architecture -> a Hugging Face model directory.

GGUF is llama.cpp's container: weights (often quantised), hyperparameters and tokenizer in one
file. The `gguf` package reads the container and dequantises; names, the layout of the q and k rows,
norms and the tokenizer are turned back here. NumPy only, no PyTorch.
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

from xtoken_jax.errors import XTokenError
from xtoken_jax.text.convert_tokenizer import write_tokenizer
from xtoken_jax.text.gguf_architectures import (
    OUTER_NAMES,
    GgufArchitecture,
    architecture_of,
    read_config,
)
from xtoken_jax.text.gguf_tokenizers import read_tokenizer

CONVERTER_VERSION = 1  # raise it when the files written here change: caches then convert anew


def convert_gguf(source: Path, out: Path) -> None:
    """Write config, float32 weights, tokenizer and generation config into the directory `out`.

    Weights are what the quantised file holds, dequantised: they are not the original float ones.

    Raises:
        XTokenError: `source` is not GGUF, or not of an architecture of `gguf_architectures`, or
            has a tensor, hyperparameter or tokenizer that the conversion does not know.
    """
    try:
        reader = GGUFReader(source)
    except (ValueError, OSError, IndexError) as error:
        raise XTokenError(f"`{source}` must be a GGUF file, got: {error}") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = read_config(fields)
    architecture = architecture_of(fields)
    weights = read_weights(reader, architecture, config)
    config["tie_word_embeddings"] = "lm_head.weight" not in weights
    # The embedding may be padded past the tokenizer's tokens, so its rows count, not the tokens.
    config["vocab_size"] = weights["model.embed_tokens.weight"].shape[0]

    # First: it refuses before anything is written.
    _write_tokenizer(fields, config, architecture.tokenizer, out)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    _write_json(out / "config.json", config)
    # safetensors makes its file readable by the owner alone; a shared cache needs the usual mode.
    shutil.copymode(out / "config.json", out / "model.safetensors")
    special_ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    _write_json(out / "generation_config.json", {key: config[key] for key in special_ids})


def read_weights(
    reader: GGUFReader, architecture: GgufArchitecture, config: dict[str, Any]
) -> dict[str, np.ndarray]:
    """All tensors by their Hugging Face names, float32, `[out, in]`.

    Raises:
        XTokenError: tensors of unknown names; all of them are listed.
    """
    weights, unknown = {}, []
    for tensor in reader.tensors:
        name = _translate(tensor.name, architecture)
        if name is None:
            unknown.append(tensor.name)
            continue
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        weight = weight.reshape([int(size) for size in reversed(tensor.shape)])
        if architecture.pairs_are_neighbours and name.endswith("q_proj.weight"):
            weight = unpermute(weight, config["num_attention_heads"])
        elif architecture.pairs_are_neighbours and name.endswith("k_proj.weight"):
            weight = unpermute(weight, config["num_key_value_heads"])
        elif architecture.norms_count_from_zero and name.endswith("norm.weight"):
            weight = weight - np.float32(1)
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


def _translate(name: str, architecture: GgufArchitecture) -> str | None:
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        inner = architecture.block_names.get(match[2])
        return inner and f"model.layers.{match[1]}.{inner}.weight"
    outer = OUTER_NAMES.get(name.removesuffix(".weight"))
    return outer and f"{outer}.weight"


def _write_tokenizer(
    fields: dict[str, Any], config: dict[str, Any], kind: tuple[str, str], out: Path
) -> None:
    tokens = fields["tokenizer.ggml.tokens"]
    unk_id = fields.get("tokenizer.ggml.unknown_token_id")
    write_tokenizer(
        read_tokenizer(fields, kind),
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
