"""How every family's parameters are called in Hugging Face's files: one table each.

Loading and saving read the same table in opposite directions. A linear layer's weight is stored by
Hugging Face as [outputs, inputs], here as the letters of its name say, inputs first.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

Index = tuple[slice, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of a key table.

    Attributes:
        name: The parameter's name in `Decoder`, or in `Layer` where `key` has a `{layer}`.
        key: The tensor's name in the file.
        num_inputs: How many leading dimensions are a linear layer's inputs; None where the file
            stores the array as it is, but for its dimensions being flattened.

    Entries of a table with the same key are fused in the file: one tensor holds the outputs of all,
    in the table's order.
    """

    name: str
    key: str
    num_inputs: int | None = None

    @property
    def per_layer(self) -> bool:
        """Whether there is one tensor in the file for every layer."""
        return "{layer}" in self.key

    @property
    def stores_vocabulary(self) -> bool:
        """Whether the rows are the vocabulary's, which the mesh may have padded."""
        return self.name.endswith("_VD")

    def file_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape in the file of a parameter (of one layer) with this shape."""
        if self.num_inputs is None:
            return tuple(shape) if self.stores_vocabulary else (math.prod(shape),)
        return math.prod(shape[self.num_inputs :]), math.prod(shape[: self.num_inputs])

    def file_index(self, index: Index, shape: Sequence[int], *, first_row: int = 0) -> Index:
        """The block of the file's tensor that holds `index` of the parameter.

        Args:
            index: A block of the parameter (of one layer).
            shape: The parameter's.
            first_row: Where the parameter begins in a fused tensor.
        """
        if self.num_inputs is None:
            return index if self.stores_vocabulary else (_flat_slice(index, shape),)
        inputs = slice(0, self.num_inputs)
        outputs = slice(self.num_inputs, None)
        rows = _flat_slice(index[outputs], shape[outputs])
        return (
            slice(rows.start + first_row, rows.stop + first_row),
            _flat_slice(index[inputs], shape[inputs]),
        )

    def from_file(self, block: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Turn a block of the file's tensor into one of the parameter."""
        return (block if self.num_inputs is None else block.T).reshape(shape)

    def to_file(self, parameter: np.ndarray) -> np.ndarray:
        """Turn a parameter (of one layer) into the file's tensor."""
        file_shape = self.file_shape(parameter.shape)
        if self.num_inputs is None:
            return np.ascontiguousarray(parameter.reshape(file_shape))
        return np.ascontiguousarray(parameter.reshape(file_shape[::-1]).T)


def _linear(name: str, key: str, num_inputs: int = 1) -> Entry:
    return Entry(name, "model.layers.{layer}." + key, num_inputs)


def _vector(name: str, key: str) -> Entry:
    return Entry(name, "model.layers.{layer}." + key)


_OUTSIDE = (
    Entry("embedding_VD", "model.embed_tokens.weight"),
    Entry("final_norm_D", "model.norm.weight"),
    Entry("lm_head_VD", "lm_head.weight"),
)
_ATTENTION = (
    _linear("query_DHE", "self_attn.q_proj.weight"),
    _linear("key_DGE", "self_attn.k_proj.weight"),
    _linear("value_DGE", "self_attn.v_proj.weight"),
    _linear("output_HED", "self_attn.o_proj.weight", num_inputs=2),
    _vector("query_bias_HE", "self_attn.q_proj.bias"),
    _vector("key_bias_GE", "self_attn.k_proj.bias"),
    _vector("value_bias_GE", "self_attn.v_proj.bias"),
    _vector("output_bias_D", "self_attn.o_proj.bias"),
    _vector("query_norm_E", "self_attn.q_norm.weight"),
    _vector("key_norm_E", "self_attn.k_norm.weight"),
)
_FEED_FORWARD = (
    _linear("gate_DF", "mlp.gate_proj.weight"),
    _linear("up_DF", "mlp.up_proj.weight"),
    _linear("down_FD", "mlp.down_proj.weight"),
    _vector("gate_bias_F", "mlp.gate_proj.bias"),
    _vector("up_bias_F", "mlp.up_proj.bias"),
    _vector("down_bias_D", "mlp.down_proj.bias"),
)
_NORMS = (
    _vector("attention_norm_D", "input_layernorm.weight"),
    _vector("ffn_norm_D", "post_attention_layernorm.weight"),
)

LLAMA_KEYS = (*_OUTSIDE, *_NORMS, *_ATTENTION, *_FEED_FORWARD)
PHI3_KEYS = (
    *_OUTSIDE,
    *_NORMS,
    _linear("query_DHE", "self_attn.qkv_proj.weight"),
    _linear("key_DGE", "self_attn.qkv_proj.weight"),
    _linear("value_DGE", "self_attn.qkv_proj.weight"),
    _linear("output_HED", "self_attn.o_proj.weight", num_inputs=2),
    _linear("gate_DF", "mlp.gate_up_proj.weight"),
    _linear("up_DF", "mlp.gate_up_proj.weight"),
    _linear("down_FD", "mlp.down_proj.weight"),
)
GEMMA3_KEYS = (
    *_OUTSIDE,
    _vector("attention_norm_D", "input_layernorm.weight"),
    _vector("attention_out_norm_D", "post_attention_layernorm.weight"),
    _vector("ffn_norm_D", "pre_feedforward_layernorm.weight"),
    _vector("ffn_out_norm_D", "post_feedforward_layernorm.weight"),
    *_ATTENTION,
    *_FEED_FORWARD,
)

KEY_TABLES = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3"), LLAMA_KEYS),
    "phi3": PHI3_KEYS,
    "gemma3_text": GEMMA3_KEYS,
}


def _flat_slice(index: Index, shape: Sequence[int]) -> slice:
    """The rows that an index covers in flattened dimensions, of which only the first may be cut."""
    inner = math.prod(shape[1:])
    return slice(index[0].start * inner, index[0].stop * inner)
