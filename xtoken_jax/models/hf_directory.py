"""A Hugging Face model directory on disk: read its tensors by name, replace it as a whole."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.shards import MAX_SHARD_BYTES, LazyTensor, write_shards

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
_MODEL_FILES = re.compile(
    r"config\.json|generation_config\.json|model.*\.safetensors|model\.safetensors\.index\.json"
)
_LAYER_KEY = re.compile(r"(.*\.layers\.)(\d+)(\..*)")
_WRAPPED_PREFIXES = {
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "model.language_model.": "model.",
}
_MAX_BYTES_MAPPED = 2**24
_ADVICE = "name a Hugging Face model directory with config.json and model.safetensors"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        XTokenError: it does not exist, or does not hold a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise XTokenError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise XTokenError(f"{path}: must be JSON, got {error}") from error
    if not isinstance(content, dict):
        raise XTokenError(f"{path}: must be a JSON object, got {type(content).__name__}")
    return content


def read_config(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a model directory's `config.json`.

    Raises:
        XTokenError: the directory or the file does not exist; the message says what to do.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise XTokenError(f"{directory}: no such directory; {_ADVICE}")
    if not (directory / "config.json").is_file():
        raise XTokenError(f"{directory}: has no config.json; {_ADVICE}")
    return read_json(directory / "config.json")


class TensorFiles:
    """The tensors of a model directory, in one safetensors file or many, read lazily by name.

    The files are memory-mapped: only the slices asked for become host arrays. The pages that were
    read count as this process's memory while a file is mapped, so it is mapped anew now and then.
    """

    def __init__(self, directory: str | os.PathLike[str], *, wrapped: bool = False):
        """Open every file that `model.safetensors.index.json` names, or `model.safetensors`.

        Args:
            directory: Of the model.
            wrapped: The language model is a part of the model (Gemma-3 with a vision tower): its
                tensors get the names that they have by themselves, the others are left out.

        Raises:
            XTokenError: there is neither, a named file is missing, or a file is damaged.
        """
        self._places: dict[str, tuple[Path, str]] = {}
        self._handles: dict[Path, Any] = {}
        self._bytes_mapped = 0
        for path in _tensor_files(Path(directory)):
            for key in self._handle(path).keys():  # noqa: SIM118, a handle is no mapping
                name = _unwrapped(key) if wrapped else key
                if name is not None:
                    self._places[name] = path, key

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._places))

    def shape(self, key: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        path, name = self._places[key]
        return tuple(self._handle(path).get_slice(name).get_shape())

    def read(self, key: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """A tensor or a block of it, in the file's dtype (bfloat16 by way of ml_dtypes)."""
        path, name = self._places[key]
        handle = self._handle(path)
        tensor = handle.get_tensor(name) if index is None else handle.get_slice(name)[index]
        self._bytes_mapped += tensor.nbytes
        if self._bytes_mapped > _MAX_BYTES_MAPPED:
            self._handles.clear()
            self._bytes_mapped = 0
        return tensor

    def _handle(self, path: Path) -> Any:
        if path not in self._handles:
            try:
                self._handles[path] = safe_open(path, framework="numpy")
            except (SafetensorError, OSError) as error:
                raise XTokenError(
                    f"{path}: is not a readable safetensors file ({error})"
                ) from error
        return self._handles[path]


def _unwrapped(key: str) -> str | None:
    """A tensor's name in the language model by itself, in the spelling of transformers 4 or 5."""
    for outer, inner in _WRAPPED_PREFIXES.items():
        if key.startswith(outer):
            return inner + key.removeprefix(outer)
    return None if "vision_tower." in key or "multi_modal_projector." in key else key


def _tensor_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    if not index.is_file():
        if not single.is_file():
            raise XTokenError(f"{directory}: has no safetensors weights; {_ADVICE}")
        return [single]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise XTokenError(f"{index}: `weight_map` must be an object, got {weight_map!r}")
    names = sorted(set(map(str, weight_map.values())))
    outside = [name for name in names if Path(name).name != name]
    missing = [name for name in names if not (directory / name).is_file()]
    if outside or missing:
        raise XTokenError(f"{index}: files must be in the directory, missing {outside or missing}")
    return [directory / name for name in names]


def layer_of_key(key: str) -> int | None:
    """The layer number inside a tensor's name, or None outside the layers."""
    match = _LAYER_KEY.fullmatch(key)
    return int(match[2]) if match else None


def renumber_layer(key: str, layer: int) -> str:
    """A tensor's name, moved to another layer."""
    return _LAYER_KEY.sub(rf"\g<1>{layer}\g<3>", key)


def check_layers(layers: Sequence[int] | None, num_layers: int) -> tuple[int, ...]:
    """The layers to keep, in the order given; all of them for None.

    Raises:
        XTokenError: none is left, or one is outside `0 .. num_layers - 1`.
    """
    if layers is None:
        return tuple(range(num_layers))
    chosen = tuple(layers)
    if not chosen or not all(0 <= layer < num_layers for layer in chosen):
        raise XTokenError(
            f"`layers` must name some of the layers 0..{num_layers - 1}, got {list(chosen)}"
        )
    return chosen


def write_model_files(
    directory: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, LazyTensor],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write config.json, generation_config.json and the weights, in one file or in shards."""
    write_json(directory / "config.json", config)
    token_ids = {name: config.get(name) for name in TOKEN_ID_FIELDS}
    write_json(
        directory / "generation_config.json",
        {"_from_model_config": True, **{k: v for k, v in token_ids.items() if v is not None}},
    )
    write_shards(directory, tensors, max_shard_bytes=max_shard_bytes)


TOKEN_ID_FIELDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with sorted keys."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_tokenizer(source: str | os.PathLike[str], target: Path) -> None:
    """Copy the tokenizer files that `source` has.

    Raises:
        XTokenError: it has none.
    """
    found = [name for name in TOKENIZER_FILES if (Path(source) / name).is_file()]
    if not found:
        raise XTokenError(f"{source}: has no tokenizer files; name a directory with tokenizer.json")
    for name in found:
        shutil.copyfile(Path(source) / name, target / name)


@contextlib.contextmanager
def replaced_directory(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary directory that takes the place of `directory` when the block ends well.

    An earlier model in that place stays until then. It is removed only if all its files are ones
    that a model directory has, so that a mistyped path cannot delete anything else.

    Raises:
        XTokenError: something else than a model is there.
    """
    target = Path(directory).absolute()
    _check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the rename stays within one file system.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        fresh, old = Path(scratch, "new"), Path(scratch, "old")
        fresh.mkdir()
        yield fresh
        _check_replaceable(target)
        if target.exists():
            target.rename(old)
        fresh.rename(target)


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    names: Iterable[str] = os.listdir(target) if target.is_dir() else [target.name]
    foreign = [
        name for name in names if name not in TOKENIZER_FILES and not _MODEL_FILES.fullmatch(name)
    ]
    if foreign:
        raise XTokenError(
            f"{target}: must be free, empty or a model directory to be replaced, "
            f"but holds {sorted(foreign)[0]}"
        )
