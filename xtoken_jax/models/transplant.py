"""Give a model another tokenizer: the body stays, the vocabulary's rows are made from its own.

A token of the new vocabulary gets the mean of the embedding rows of its pieces, the tokens that the
old tokenizer cuts its bytes into. A token that the old vocabulary has as a whole is one piece, so
its row is copied. Everything runs on the host, in NumPy.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.hf_config import is_wrapped
from xtoken_jax.models.hf_directory import (
    TensorFiles,
    check_layers,
    copy_tokenizer,
    layer_of_key,
    read_config,
    renumber_layer,
    replaced_directory,
    write_model_files,
)
from xtoken_jax.models.shards import LazyTensor
from xtoken_jax.text import declared_tokens

_VOCABULARY_KEYS = ("model.embed_tokens.weight", "lm_head.weight")
_ROWS_PER_BLOCK = 4096  # bounds the gathered rows: 4,096 tokens of 3 pieces x 576 floats are 28 MB
_TOKEN_NAMES = ("bos_token", "eos_token", "pad_token")


def transplant(
    source_dir: str | os.PathLike[str],
    tokenizer_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    piece_ids_N: np.ndarray,
    piece_offsets_V: np.ndarray,
    layers: Sequence[int] | None = None,
) -> None:
    """Write a model directory with the body of `source_dir` and the vocabulary of `tokenizer_dir`.

    Embedding and, where it is untied, unembedding get one row per new token: see `mean_of_pieces`.
    config.json gets the new vocabulary size and bos, eos and pad ids; the tokenizer files are
    copied. All weights are written as float32. The directory appears whole or not at all.

    Args:
        source_dir: A Hugging Face directory of a family that `Architecture` reads.
        tokenizer_dir: With tokenizer.json and tokenizer_config.json.
        out_dir: Free, empty, or an earlier model's.
        piece_ids_N: Source tokens of all new tokens, end to end.
        piece_offsets_V: Where each new token's pieces start in it, and the end: new vocabulary size
            + 1 numbers.
        layers: The source's layers to keep, renumbered in this order; default all.

    Raises:
        XTokenError: a directory lacks a file, or config.json has a field that is not supported.
        ValueError: the pieces do not fit the source's vocabulary or the tokenizer.
    """
    config = read_config(source_dir)
    architecture = Architecture.from_hf(config)
    files = TensorFiles(source_dir, wrapped=is_wrapped(config))
    chosen = check_layers(layers, architecture.num_layers)
    vocab_size = len(piece_offsets_V) - 1
    token_ids = _special_token_ids(Path(tokenizer_dir), vocab_size)

    tensors = _body(files, chosen)
    for key in _VOCABULARY_KEYS[: 1 if architecture.tied else 2]:
        if key not in files:
            raise XTokenError(f"{source_dir}: missing `{key}`")
        source_UD = files.read(key).astype(np.float32)
        tensors[key] = mean_of_pieces(source_UD, piece_ids_N, piece_offsets_V)

    config = architecture.with_layers(chosen).to_hf() | token_ids
    config |= {"vocab_size": vocab_size, "dtype": "float32"}
    with replaced_directory(out_dir) as fresh:
        lazy = {key: LazyTensor.of(tensor) for key, tensor in tensors.items()}
        write_model_files(fresh, config, lazy)
        copy_tokenizer(tokenizer_dir, fresh)


def mean_of_pieces(
    source_UD: np.ndarray, piece_ids_N: np.ndarray, piece_offsets_V: np.ndarray
) -> np.ndarray:
    """Row v is the mean of the rows `piece_ids_N[piece_offsets_V[v] : piece_offsets_V[v + 1]]`.

    A token without pieces gets the mean of all source rows; one with a single piece, an exact copy.

    Args:
        source_UD: Float32, the old vocabulary's rows.
        piece_ids_N: Row numbers.
        piece_offsets_V: V + 1 ascending numbers from 0 to N.

    Returns:
        Float32, shape [V, D].

    Raises:
        ValueError: an id is outside `source_UD`, or the offsets do not cover `piece_ids_N`.
    """
    _check_pieces(len(source_UD), piece_ids_N, piece_offsets_V)
    counts_V = np.diff(piece_offsets_V)
    new_VD = np.empty((len(counts_V), source_UD.shape[1]), np.float32)
    new_VD[counts_V == 0] = source_UD.mean(axis=0, dtype=np.float64)
    with_pieces = np.flatnonzero(counts_V)
    for start in range(0, len(with_pieces), _ROWS_PER_BLOCK):
        # Tokens without pieces take no room in piece_ids_N, so the block's pieces are contiguous.
        block = with_pieces[start : start + _ROWS_PER_BLOCK]
        first, last = piece_offsets_V[block[0]], piece_offsets_V[block[-1] + 1]
        rows = source_UD[piece_ids_N[first:last]]
        sums = np.add.reduceat(rows, piece_offsets_V[block] - first, axis=0)
        new_VD[block] = sums / counts_V[block, None].astype(np.float32)
    return new_VD


def _check_pieces(num_rows: int, piece_ids_N: np.ndarray, piece_offsets_V: np.ndarray) -> None:
    if len(piece_offsets_V) < 2 or piece_offsets_V[0] != 0:
        raise ValueError(f"`piece_offsets_V` must start with 0, got {piece_offsets_V[:1]}")
    if piece_offsets_V[-1] != len(piece_ids_N) or np.any(np.diff(piece_offsets_V) < 0):
        raise ValueError(
            f"`piece_offsets_V` must ascend to {len(piece_ids_N)}, the number of pieces, "
            f"got {piece_offsets_V[-1]} at its end"
        )
    if len(piece_ids_N) and not 0 <= piece_ids_N.min() <= piece_ids_N.max() < num_rows:
        raise ValueError(
            f"`piece_ids_N` must be within 0..{num_rows - 1}, "
            f"got {piece_ids_N.min()}..{piece_ids_N.max()}"
        )


def _body(files: TensorFiles, layers: Sequence[int]) -> dict[str, np.ndarray]:
    """All tensors but the vocabulary's, of the chosen layers, as float32 under their new names."""
    tensors: dict[str, np.ndarray] = {}
    for key in files:
        layer = layer_of_key(key)
        if layer is None:
            if key not in _VOCABULARY_KEYS:
                tensors[key] = files.read(key).astype(np.float32)
            continue
        for new_layer, kept in enumerate(layers):
            if kept == layer:
                tensors[renumber_layer(key, new_layer)] = files.read(key).astype(np.float32)
    return tensors


def _special_token_ids(tokenizer_dir: Path, vocab_size: int) -> dict[str, int | None]:
    """The bos, eos and pad ids of a tokenizer directory, under config.json's names."""
    path = tokenizer_dir / "tokenizer.json"
    if not path.is_file():
        raise XTokenError(f"{tokenizer_dir}: has no tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise XTokenError(f"{path}: is not a tokenizer ({error})") from error
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    if max(ids) >= vocab_size:
        raise ValueError(
            f"`piece_offsets_V` must have {max(ids) + 2} numbers for {tokenizer_dir}, "
            f"got {vocab_size + 1}"
        )
    declared = declared_tokens(tokenizer_dir)
    return {
        f"{name}_id": tokenizer.token_to_id(declared[name]) if name in declared else None
        for name in _TOKEN_NAMES
    }
