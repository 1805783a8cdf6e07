"""Packed rows on disk: ArrayRecord shards and a manifest that says what they were made from."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from xtoken_jax.data.example import Lengths
from xtoken_jax.data.rows import Rows, row_dtype
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.files import replaced_file

MANIFEST = "manifest.json"
FORMAT = 2  # of shards and manifest
# One row is read at a time, from anywhere; compression costs less than the bytes that it saves.
_OPTIONS = "group_size:1,zstd:1"


def write_shard(path: Path, rows: Rows) -> None:
    """Write rows, each one record: its arrays as bytes, then where its documents came from."""
    from array_record.python.array_record_module import ArrayRecordWriter

    with replaced_file(path) as temporary:
        writer = ArrayRecordWriter(str(temporary), _OPTIONS)
        for row, records in zip(rows.arrays, rows.records, strict=True):
            writer.write(row.tobytes() + json.dumps(records).encode())
        writer.close()


class PreparedRows:
    """Rows in the shards of a directory, read from anywhere.

    Attributes:
        manifest: What they were made from, and how many there are.
        lengths: Of the rows.
    """

    def __init__(self, directory: Path) -> None:
        """Open a directory.

        Raises:
            UsageError: it was not prepared, or not to the end.
            XTokenError: a shard is missing or another.
        """
        self.manifest = read_manifest(directory)
        plan = self.manifest["plan"]
        self.lengths = Lengths(plan["lengths"]["student"], plan["lengths"]["teachers"])
        self._dtype = row_dtype(self.lengths)
        self._paths = [directory / shard["file"] for shard in self.manifest["shards"]]
        for path, shard in zip(self._paths, self.manifest["shards"], strict=True):
            size = path.stat().st_size if path.is_file() else None
            if size != shard["bytes"]:
                raise XTokenError(f"{path} must have {shard['bytes']} bytes, got {size}")

    @functools.cached_property
    def _source(self) -> Any:
        return grain.sources.ArrayRecordDataSource([str(path) for path in self._paths])

    def __len__(self) -> int:
        """Number of rows."""
        return sum(self.num_rows)

    @property
    def num_rows(self) -> list[int]:
        """Rows of each source."""
        counts = [0] * len(self.manifest["plan"]["sources"])
        for shard in self.manifest["shards"]:
            counts[shard["source"]] += shard["rows"]
        return counts

    @property
    def fingerprints(self) -> dict[str, str]:
        """A hash of each shard's documents, and of all that decides what became of them."""
        return {shard["file"]: shard["block"] for shard in self.manifest["shards"]}

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, list[str]]:
        """Some rows, and the records in them."""
        size = self._dtype.itemsize
        # One by one: the source starts threads for a list, which cost more than reading does.
        found = [self._source[index] for index in indices]
        arrays = np.frombuffer(b"".join([row[:size] for row in found]), self._dtype)
        return arrays, [record for row in found for record in json.loads(row[size:])]


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a prepared directory.

    Raises:
        UsageError: there is none.
        XTokenError: it cannot be read, or is of another version.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"`data.prepared` must be a directory that `xtoken prepare` has finished, but there is "
            f"no {path}"
        ) from error
    except ValueError as error:
        raise XTokenError(f"{path} must be a manifest, got: {error}") from error
    if manifest.get("format") != FORMAT:
        raise XTokenError(
            f"{path} must have `format` {FORMAT}, got {manifest.get('format')}; prepare it again"
        )
    return manifest


def check_plan(manifest: Mapping[str, Any], plan: Mapping[str, Any], directory: Path) -> None:
    """What was prepared must be what a run needs.

    Raises:
        XTokenError: it is not; it says what differs.
    """
    saved, wanted = _flat(manifest["plan"]), _flat(json.loads(json.dumps(plan)))
    changed = [
        f"{name}: {saved.get(name)} -> {wanted.get(name)}"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
    if changed:
        raise XTokenError(
            f"data in {directory} was prepared for another run; prepare it again, in another "
            f"directory: {'; '.join(changed)}"
        )


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(content, Mapping):
        entries = content.items()
    elif isinstance(content, list):
        entries = enumerate(content)
    else:
        return {prefix[:-1]: content}
    flat: dict[str, Any] = {}
    for name, value in entries:
        flat |= _flat(value, f"{prefix}{name}.")
    return flat
