"""Hugging Face safetensors into a `Decoder`, and a `Decoder` out to a directory.

One table per family says how each parameter is called on the other side; loading and saving read
the same table in opposite directions. A linear layer's weight is stored by Hugging Face as
[outputs, inputs], here as the letters of its name say, inputs first.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.hf_directory import (
    TensorFiles,
    check_layers,
    copy_tokenizer,
    read_config,
    replaced_directory,
    write_model_files,
)
from xtoken_jax.models.sharding import padded_vocab_size, parameter_spec

Index = tuple[slice, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of a key table.

    Attributes:
        name: The parameter's name in `Decoder`, or in `Layer` where `key` has a `{layer}`.
        key: The tensor's name in the file.
        num_inputs: How many leading dimensions are a linear layer's inputs; None where the file
            stores the array as it is, but for its dimensions being flattened.
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

    def file_index(self, index: Index, shape: Sequence[int]) -> Index:
        """The block of the file's tensor that holds `index` of the parameter."""
        if self.num_inputs is None:
            return index if self.stores_vocabulary else (_flat_slice(index, shape),)
        inputs = slice(0, self.num_inputs)
        outputs = slice(self.num_inputs, None)
        return (
            _flat_slice(index[outputs], shape[outputs]),
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


_ATTENTION = "model.layers.{layer}.self_attn."
_MLP = "model.layers.{layer}.mlp."

LLAMA_KEYS = (
    Entry("embedding_VD", "model.embed_tokens.weight"),
    Entry("final_norm_D", "model.norm.weight"),
    Entry("lm_head_VD", "lm_head.weight"),
    Entry("attention_norm_D", "model.layers.{layer}.input_layernorm.weight"),
    Entry("query_DHE", _ATTENTION + "q_proj.weight", num_inputs=1),
    Entry("key_DGE", _ATTENTION + "k_proj.weight", num_inputs=1),
    Entry("value_DGE", _ATTENTION + "v_proj.weight", num_inputs=1),
    Entry("output_HED", _ATTENTION + "o_proj.weight", num_inputs=2),
    Entry("query_bias_HE", _ATTENTION + "q_proj.bias"),
    Entry("key_bias_GE", _ATTENTION + "k_proj.bias"),
    Entry("value_bias_GE", _ATTENTION + "v_proj.bias"),
    Entry("output_bias_D", _ATTENTION + "o_proj.bias"),
    Entry("ffn_norm_D", "model.layers.{layer}.post_attention_layernorm.weight"),
    Entry("gate_DF", _MLP + "gate_proj.weight", num_inputs=1),
    Entry("up_DF", _MLP + "up_proj.weight", num_inputs=1),
    Entry("down_FD", _MLP + "down_proj.weight", num_inputs=1),
    Entry("gate_bias_F", _MLP + "gate_proj.bias"),
    Entry("up_bias_F", _MLP + "up_proj.bias"),
    Entry("down_bias_D", _MLP + "down_proj.bias"),
)

KEY_TABLES = {"llama": LLAMA_KEYS}


def load_model(
    directory: str | os.PathLike[str],
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    layers: Sequence[int] | None = None,
    remat: bool | str = False,
) -> Decoder:
    """Read a Hugging Face model directory into a `Decoder`.

    Each parameter is read block by block from the memory-mapped files, onto the device that keeps
    the block: no device and no host array ever holds the whole model.

    Args:
        directory: With config.json and safetensors weights, in one file or indexed.
        dtype: Of activations and matrix products.
        param_dtype: That the weights are converted to, whatever the file's.
        mesh: Parameters are born sharded over it, and the vocabulary is padded with zero rows so
            that its `tensor` axis divides them.
        layers: The layers to keep, in this order; default all.
        remat: See `Decoder`.

    Raises:
        XTokenError: a file is missing or damaged, config.json has a field that is not supported, or
            tensors are missing, unexpected or of another shape; every such tensor is named.
    """
    config = read_config(directory)
    files = TensorFiles(directory)
    architecture = Architecture.from_hf(config)
    chosen = check_layers(layers, architecture.num_layers)
    model = nnx.eval_shape(
        lambda: Decoder(
            architecture.with_layers(len(chosen)),
            rngs=nnx.Rngs(0),
            dtype=dtype,
            param_dtype=param_dtype,
            remat=remat,
            padded_vocab_size=padded_vocab_size(architecture.vocab_size, mesh),
        )
    )
    _check_tensors(model, files, architecture.num_layers, directory)
    for entry, parameter in _entries(model):
        abstract = parameter.get_value()
        block = partial(_read_block, entry, files, abstract, layers=chosen)
        parameter.set_value(_place(block, abstract.shape, _sharding(entry, abstract.shape, mesh)))
    return model


def save_model(
    model: Decoder,
    directory: str | os.PathLike[str],
    *,
    tokenizer_dir: str | os.PathLike[str] | None = None,
) -> None:
    """Write a directory that `transformers` loads: config, weights, generation config, tokenizer.

    The directory appears whole or not at all, in the place of an earlier model there. Weights keep
    their dtype; the vocabulary's padded rows are left out.

    Args:
        model: Sharded or not.
        directory: Free, empty, or an earlier model's.
        tokenizer_dir: Its tokenizer files are copied.

    Raises:
        XTokenError: `directory` holds something else, or `tokenizer_dir` no tokenizer.
    """
    tensors = _tensors(model)
    dtype = tensors[LLAMA_KEYS[0].key].dtype.name
    with replaced_directory(directory) as fresh:
        write_model_files(fresh, model.architecture.to_hf() | {"dtype": dtype}, tensors)
        if tokenizer_dir is not None:
            copy_tokenizer(tokenizer_dir, fresh)


def _entries(model: Decoder) -> Iterator[tuple[Entry, nnx.Param]]:
    """The rows of the family's table whose parameter this model has, with the parameter."""
    for entry in KEY_TABLES[model.architecture.model_type]:
        parameter = getattr(model.layers if entry.per_layer else model, entry.name)
        if parameter is not None:
            yield entry, parameter


def _check_tensors(
    model: Decoder, files: TensorFiles, num_file_layers: int, directory: str | os.PathLike[str]
) -> None:
    """Raise one XTokenError naming every missing, unexpected or misshapen tensor."""
    expected: dict[str, tuple[int, ...]] = {}
    for entry, parameter in _entries(model):
        shape = parameter.get_value().shape
        if entry.per_layer:
            keys = (entry.key.format(layer=layer) for layer in range(num_file_layers))
            expected |= dict.fromkeys(keys, entry.file_shape(shape[1:]))
        elif entry.stores_vocabulary:
            expected[entry.key] = (model.vocab_size, *shape[1:])
        else:
            expected[entry.key] = entry.file_shape(shape)
    found = set(files) - _tolerated(model, files)
    complaints = [f"missing `{key}`" for key in sorted(expected.keys() - found)]
    complaints += [f"unexpected `{key}`" for key in sorted(found - expected.keys())]
    complaints += [
        f"`{key}` must have shape {list(expected[key])}, got {list(files.shape(key))}"
        for key in sorted(found & expected.keys())
        if files.shape(key) != expected[key]
    ]
    if complaints:
        raise XTokenError(f"{directory}: {len(complaints)} bad tensors: " + "; ".join(complaints))


def _tolerated(model: Decoder, files: TensorFiles) -> set[str]:
    """Tensors that say nothing new: rotary tables, and a tied head that equals the embedding."""
    keys = {key for key in files if key.endswith(".rotary_emb.inv_freq")}
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    tied_twice = model.lm_head_VD is None and head in files and embedding in files
    if tied_twice and np.array_equal(files.read(head), files.read(embedding)):
        keys.add(head)
    return keys


def _read_block(
    entry: Entry,
    files: TensorFiles,
    parameter: jax.ShapeDtypeStruct,
    index: Index,
    *,
    layers: Sequence[int],
) -> np.ndarray:
    """The block `index` of a parameter, as a new host array in the parameter's dtype."""
    index = tuple(
        slice(*part.indices(size)[:2]) for part, size in zip(index, parameter.shape, strict=True)
    )
    block = np.zeros([part.stop - part.start for part in index], parameter.dtype)
    if entry.per_layer:
        file_index = entry.file_index(index[1:], parameter.shape[1:])
        for row, layer in zip(block, layers[index[0]], strict=True):
            tensor = files.read(entry.key.format(layer=layer), file_index)
            row[...] = entry.from_file(tensor, row.shape)
        return block
    if entry.stores_vocabulary:
        # Rows past the file's are padding and stay zero.
        num_rows = files.shape(entry.key)[0]
        rows = slice(min(index[0].start, num_rows), min(index[0].stop, num_rows))
        index = (rows, *index[1:])
    tensor = files.read(entry.key, entry.file_index(index, parameter.shape))
    block[: len(tensor)] = tensor
    return block


def _sharding(entry: Entry, shape: Sequence[int], mesh: Mesh | None) -> NamedSharding | None:
    if mesh is None:
        return None
    path = ("layers", entry.name) if entry.per_layer else (entry.name,)
    return NamedSharding(mesh, parameter_spec(path, shape, mesh.shape))


def _place(
    read: Callable[[Index], np.ndarray], shape: tuple[int, ...], sharding: NamedSharding | None
) -> jax.Array:
    """Put every device's block on it, one after the other."""
    if sharding is None:
        return jnp.asarray(read(tuple(slice(None) for _ in shape)))
    blocks = [
        jax.device_put(read(index or ()), device)
        for device, index in sharding.addressable_devices_indices_map(shape).items()
    ]
    return jax.make_array_from_single_device_arrays(shape, sharding, blocks)


def _flat_slice(index: Index, shape: Sequence[int]) -> slice:
    """The rows that an index covers in flattened dimensions, of which only the first may be cut."""
    inner = math.prod(shape[1:])
    return slice(index[0].start * inner, index[0].stop * inner)


def _tensors(model: Decoder) -> dict[str, np.ndarray]:
    """Every tensor of the model as the file has it, on the host."""
    tensors: dict[str, np.ndarray] = {}
    for entry, parameter in _entries(model):
        value = parameter.get_value()
        if entry.per_layer:
            for layer in range(value.shape[0]):
                tensors[entry.key.format(layer=layer)] = entry.to_file(np.asarray(value[layer]))
        else:
            rows = model.vocab_size if entry.stores_vocabulary else value.shape[0]
            tensors[entry.key] = entry.to_file(np.asarray(value)[:rows])
    return tensors
