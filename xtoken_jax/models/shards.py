"""Safetensors files written tensor by tensor, so that the host never holds more than one."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAX_SHARD_BYTES = 5_000_000_000

_DTYPE_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}


class LazyTensor(NamedTuple):
    """A tensor that is made when its turn comes to be written."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @classmethod
    def of(cls, array: np.ndarray) -> "LazyTensor":
        """One that is there already."""
        return cls(array.shape, array.dtype, lambda: array)

    @property
    def num_bytes(self) -> int:
        """On disk."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def write_shards(
    directory: Path, tensors: Mapping[str, LazyTensor], *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write model.safetensors, or as many shards as are needed and their index.

    Raises:
        ValueError: `max_shard_bytes` is not positive.
    """
    if max_shard_bytes < 1:
        raise ValueError(f"`max_shard_bytes` must be at least 1, got {max_shard_bytes}")
    shards = _split(tensors, max_shard_bytes)
    if len(shards) == 1:
        write_safetensors(directory / "model.safetensors", tensors)
        return
    weight_map: dict[str, str] = {}
    for number, keys in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(directory / name, {key: tensors[key] for key in keys})
        weight_map |= dict.fromkeys(keys, name)
    total_size = sum(tensor.num_bytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    path = directory / "model.safetensors.index.json"
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _split(tensors: Mapping[str, LazyTensor], max_shard_bytes: int) -> list[list[str]]:
    """Keys of each shard, in order; a tensor larger than a shard has one to itself."""
    shards: list[list[str]] = [[]]
    room = max_shard_bytes
    for key, tensor in tensors.items():
        if tensor.num_bytes > room and shards[-1]:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(key)
        room -= tensor.num_bytes
    return shards


def write_safetensors(path: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Write one file.

    Source: the format as https://huggingface.co/docs/safetensors states it: the length of a JSON
    header in eight bytes, the header, the arrays end to end. The library's own writer takes all
    arrays at once and copies each.

    Raises:
        ValueError: an array is not of the shape or dtype it was announced with.
    """
    # transformers 4 refuses a file without this metadata.
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, tensor in tensors.items():
        start, end = end, end + tensor.num_bytes
        header[key] = {
            "dtype": _DTYPE_NAMES[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # arrays begin at a multiple of eight
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for key, tensor in tensors.items():
            array = np.ascontiguousarray(tensor.read())
            expected, got = (tensor.shape, tensor.dtype), (array.shape, array.dtype)
            if got != expected:
                raise ValueError(f"`{key}` must have shape and dtype {expected}, got {got}")
            file.write(array.reshape(-1).view(np.uint8).data)
