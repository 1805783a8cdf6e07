"""Hugging Face safetensors into a `Decoder`, and a `Decoder` out to a directory."""

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.hf_config import is_wrapped
from xtoken_jax.models.hf_directory import (
    TensorFiles,
    check_layers,
    copy_tokenizer,
    read_config,
    replaced_directory,
    write_model_files,
)
from xtoken_jax.models.keys import KEY_TABLES, Entry, Index
from xtoken_jax.models.sharding import padded_vocab_size, parameter_spec
from xtoken_jax.models.shards import MAX_SHARD_BYTES, LazyTensor
from xtoken_jax.processes import gathered, is_first

_ROWS_PER_BLOCK = 8192
_ALIGNMENT = 64  # JAX on CPU takes a host array with this alignment over as it is

Fused = tuple[tuple[Entry, nnx.Param], ...]


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
    the block: no device ever holds the whole model, and the host, besides what stays on its
    devices, no more than one block and one of the files' tensors (docs/models.md has figures).

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
    files = TensorFiles(directory, wrapped=is_wrapped(config))
    architecture = Architecture.from_hf(config)
    chosen = check_layers(layers, architecture.num_layers)
    model = nnx.eval_shape(
        lambda: Decoder(
            architecture.with_layers(chosen),
            rngs=nnx.Rngs(0),
            dtype=dtype,
            param_dtype=param_dtype,
            remat=remat,
            padded_vocab_size=padded_vocab_size(architecture.vocab_size, mesh),
        )
    )
    _check_tensors(model, files, architecture.num_layers, directory)
    for fused in _tensors(model).values():
        first_row = 0
        for entry, parameter in fused:
            shape = parameter.get_value().shape
            read = partial(
                _read_block, entry, files, parameter.get_value(), first_row=first_row, layers=chosen
            )
            parameter.set_value(_place(read, shape, _sharding(entry, shape, mesh)))
            first_row += _file_shape(entry, model, shape)[0]
    return model


def save_model(
    model: Decoder,
    directory: str | os.PathLike[str],
    *,
    tokenizer_dir: str | os.PathLike[str] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a directory that `transformers` loads: config, weights, generation config, tokenizer.

    The directory appears whole or not at all, in the place of an earlier model there. Of several
    processes, all of which must call this, the first writes. Weights keep
    their dtype; the vocabulary's padded rows are left out. They are gathered from the devices and
    written tensor by tensor.

    Args:
        model: Sharded or not.
        directory: Free, empty, or an earlier model's.
        tokenizer_dir: Its tokenizer files are copied.
        max_shard_bytes: Weights that need more than this go to several files with an index.

    Raises:
        XTokenError: `directory` holds something else, or `tokenizer_dir` no tokenizer.
    """
    tensors = _lazy_tensors(model)
    if not is_first():
        for tensor in tensors.values():
            tensor.read()  # gathering takes all processes
        return
    config = model.architecture.to_hf() | {"dtype": model.embedding_VD.get_value().dtype.name}
    with replaced_directory(directory) as fresh:
        write_model_files(fresh, config, tensors, max_shard_bytes=max_shard_bytes)
        if tokenizer_dir is not None:
            copy_tokenizer(tokenizer_dir, fresh)


def _tensors(model: Decoder) -> dict[str, Fused]:
    """The family's table for this model: a file's key and the parameters that its tensor holds."""
    tensors: dict[str, Fused] = {}
    for entry in KEY_TABLES[model.architecture.model_type]:
        parameter = getattr(model.layers if entry.per_layer else model, entry.name)
        if parameter is not None:
            tensors[entry.key] = (*tensors.get(entry.key, ()), (entry, parameter))
    return tensors


def _file_shape(entry: Entry, model: Decoder, shape: Sequence[int]) -> tuple[int, ...]:
    """Shape in the file of a parameter, or of one layer of it."""
    if entry.per_layer:
        return entry.file_shape(shape[1:])
    return entry.file_shape((model.vocab_size, *shape[1:]) if entry.stores_vocabulary else shape)


def _fused_shape(model: Decoder, fused: Fused) -> tuple[int, ...]:
    shapes = [_file_shape(entry, model, p.get_value().shape) for entry, p in fused]
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _check_tensors(
    model: Decoder, files: TensorFiles, num_file_layers: int, directory: str | os.PathLike[str]
) -> None:
    """Raise one XTokenError naming every missing, unexpected or misshapen tensor."""
    expected: dict[str, tuple[int, ...]] = {}
    for key, fused in _tensors(model).items():
        shape = _fused_shape(model, fused)
        layers = range(num_file_layers) if "{layer}" in key else range(1)
        expected |= {key.format(layer=layer): shape for layer in layers}
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
    if tied_twice and files.shape(head) == files.shape(embedding):
        num_rows = files.shape(head)[0]
        blocks = [
            (slice(start, min(start + _ROWS_PER_BLOCK, num_rows)), slice(None))
            for start in range(0, num_rows, _ROWS_PER_BLOCK)
        ]
        if all(np.array_equal(files.read(head, b), files.read(embedding, b)) for b in blocks):
            keys.add(head)
    return keys


def _read_block(
    entry: Entry,
    files: TensorFiles,
    parameter: jax.ShapeDtypeStruct,
    index: Index,
    *,
    first_row: int,
    layers: Sequence[int],
) -> np.ndarray:
    """The block `index` of a parameter, as a new host array in the parameter's dtype."""
    index = tuple(
        slice(*part.indices(size)[:2]) for part, size in zip(index, parameter.shape, strict=True)
    )
    block = _aligned_zeros([part.stop - part.start for part in index], parameter.dtype)
    if entry.per_layer:
        file_index = entry.file_index(index[1:], parameter.shape[1:], first_row=first_row)
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


def _aligned_zeros(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    num_bytes = math.prod(shape) * dtype.itemsize
    raw = np.zeros(num_bytes + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + num_bytes].view(dtype).reshape(shape)


def _place(
    read: Callable[[Index], np.ndarray], shape: tuple[int, ...], sharding: NamedSharding | None
) -> jax.Array:
    """Put every block on the devices that keep it, one block after the other."""
    if sharding is None:
        return jax.device_put(read(tuple(slice(None) for _ in shape)))
    devices: dict[str, list[Any]] = {}
    indices: dict[str, Index] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        indices[str(index)] = index or ()
        devices.setdefault(str(index), []).append(device)
    blocks: list[jax.Array] = []
    for name, index in indices.items():
        block = read(index)  # once for all replicas
        blocks += [jax.device_put(block, device) for device in devices[name]]
        jax.block_until_ready(blocks)  # or the host would hold what is still on its way
    return jax.make_array_from_single_device_arrays(shape, sharding, blocks)


def _lazy_tensors(model: Decoder) -> dict[str, LazyTensor]:
    """Every tensor of the model as the file has it, made on the host when it is read."""
    tensors: dict[str, LazyTensor] = {}
    for key, fused in _tensors(model).items():
        shape, dtype = _fused_shape(model, fused), np.dtype(fused[0][1].get_value().dtype)
        for layer in range(model.architecture.num_layers if "{layer}" in key else 1):
            tensors[key.format(layer=layer)] = LazyTensor(
                shape, dtype, partial(_host_tensor, model, fused, layer)
            )
    return tensors


def _host_tensor(model: Decoder, fused: Fused, layer: int) -> np.ndarray:
    parts = []
    for entry, parameter in fused:
        value = parameter.get_value()
        part = gathered(value[layer] if entry.per_layer else value)
        if entry.stores_vocabulary:
            part = part[: model.vocab_size]
        parts.append(entry.to_file(part))
    return np.concatenate(parts) if parts[1:] else parts[0]
