"""W on disk: safetensors, with what it was built from in the metadata."""

import importlib.metadata
import json
import shlex
import sys
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.files import replaced_file
from xtoken_jax.projection.matrix import Projection
from xtoken_jax.text import ByteTokenizer

_METADATA_KEY = "xtoken_projection"
_TENSORS = ("ids_VK", "weights_VK", "exact_pair_V")
_ROW_SUM_TOLERANCE = 1e-5


def save_projection(projection: Projection, path: str | Path) -> None:
    """Write W whole or not at all; two equal matrices from one command give equal bytes.

    Raises:
        ValueError: the projection does not say which rows are exact.
    """
    if projection.exact_pair_V is None:
        raise ValueError("`projection` must say which rows are exact, got `exact_pair_V` None")
    metadata = {
        "student_fingerprint": projection.student_fingerprint,
        "teacher_fingerprint": projection.teacher_fingerprint,
        "num_student_tokens": projection.num_student_tokens,
        "num_teacher_tokens": projection.num_teacher_tokens,
        "options": projection.options,
        "version": importlib.metadata.version("xtoken_jax"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    # One entry, since safetensors writes several in an order that changes from process to process.
    header = {_METADATA_KEY: json.dumps(metadata, sort_keys=True)}
    tensors = {name: getattr(projection, name) for name in _TENSORS}
    with replaced_file(Path(path)) as temporary:
        temporary.write_bytes(save(tensors, metadata=header))


def load_projection(
    path: str | Path,
    *,
    student: ByteTokenizer | None = None,
    teacher: ByteTokenizer | None = None,
) -> Projection:
    """Read W and check it.

    Args:
        path: What `save_projection` wrote.
        student: If given, W must have been built for this tokenizer.
        teacher: Likewise.

    Raises:
        UsageError: there is no such file.
        XTokenError: it is damaged, not a projection, or for other tokenizers.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist; `xtoken project` writes it") from error
    except (OSError, SafetensorError) as error:
        raise XTokenError(f"{path} must be a whole safetensors file, got: {error}") from error
    try:
        metadata = json.loads(header[_METADATA_KEY])
        projection = Projection(
            **{name: tensors[name] for name in _TENSORS},
            num_student_tokens=int(metadata["num_student_tokens"]),
            num_teacher_tokens=int(metadata["num_teacher_tokens"]),
            student_fingerprint=str(metadata["student_fingerprint"]),
            teacher_fingerprint=str(metadata["teacher_fingerprint"]),
            options=dict(metadata["options"]),
        )
    except KeyError as error:
        raise XTokenError(f"{path} must be a projection, but {error} is missing in it") from error
    except (ValueError, TypeError) as error:
        raise XTokenError(f"{path} must be a projection, but its metadata: {error}") from error
    _check_rows(projection, path)
    _check_pairs(projection.ids_VK, tensors["exact_pair_V"], path)
    for side, tokenizer in (("student", student), ("teacher", teacher)):
        if tokenizer is not None:
            _check_fingerprint(projection, side, tokenizer, path)
    return projection


def _check_rows(projection: Projection, path: Path) -> None:
    ids_VK, weights_VK = projection.ids_VK, projection.weights_VK
    num_rows, num_columns = projection.num_student_tokens, projection.num_teacher_tokens
    if (ids_VK.dtype, weights_VK.dtype) != (np.int32, np.float32):
        raise XTokenError(
            f"{path}: ids must be int32 and weights float32, "
            f"got {ids_VK.dtype} and {weights_VK.dtype}"
        )
    if ids_VK.ndim != 2 or ids_VK.shape != weights_VK.shape or len(ids_VK) != num_rows:
        raise XTokenError(
            f"{path}: ids and weights must both have {num_rows} rows, "
            f"got shapes {ids_VK.shape} and {weights_VK.shape}"
        )
    wrong_V = ((ids_VK < -1) | (ids_VK >= num_columns)).any(axis=1)
    _refuse(wrong_V, ids_VK, f"{path}: teacher ids must be in [-1, {num_columns})")
    is_pad_VK = ids_VK < 0
    wrong_V = (is_pad_VK[:, :-1] & ~is_pad_VK[:, 1:]).any(axis=1)
    _refuse(wrong_V, ids_VK, f"{path}: pads must come after the entries of a row")
    wrong_V = ((weights_VK > 0) == is_pad_VK).any(axis=1)
    _refuse(wrong_V, weights_VK, f"{path}: weights must be positive, and 0 at the pads")
    sums_V = weights_VK.sum(axis=1, dtype=np.float64)
    # Not `> tolerance`, which is False for NaN.
    wrong_V = ~(np.abs(sums_V - ~is_pad_VK.all(axis=1)) <= _ROW_SUM_TOLERANCE)
    _refuse(wrong_V, sums_V, f"{path}: rows must sum to 1")


def _check_pairs(ids_VK: np.ndarray, exact_pair_V: np.ndarray, path: Path) -> None:
    if exact_pair_V.dtype != bool or exact_pair_V.shape != (len(ids_VK),):
        raise XTokenError(
            f"{path}: exact pairs must be {len(ids_VK)} booleans, "
            f"got {exact_pair_V.dtype} of shape {exact_pair_V.shape}"
        )
    wrong_V = exact_pair_V & ((ids_VK >= 0).sum(axis=1) != 1)
    _refuse(wrong_V, ids_VK, f"{path}: rows of exact pairs must have one entry")
    student_ids_N = np.flatnonzero(exact_pair_V)
    wrong_V = exact_pair_V.copy()
    wrong_V[student_ids_N[np.unique(ids_VK[student_ids_N, 0], return_index=True)[1]]] = False
    _refuse(wrong_V, ids_VK, f"{path}: a teacher token must be in one exact pair at most")


def _refuse(wrong_V: np.ndarray | np.bool, values_V: np.ndarray, rule: str) -> None:
    if wrong_V.any():
        row = int(np.argmax(wrong_V))
        raise XTokenError(f"{rule}, got {values_V[row].tolist()} in row {row}")


def _check_fingerprint(
    projection: Projection, side: str, tokenizer: ByteTokenizer, path: Path
) -> None:
    stored = getattr(projection, f"{side}_fingerprint")
    if stored != tokenizer.fingerprint:
        raise XTokenError(
            f"{path} was built for another {side} tokenizer ({stored[:12]}) than "
            f"{tokenizer.name} ({tokenizer.fingerprint[:12]}); build it again with `xtoken project`"
        )
