"""metrics.jsonl: one line a step, and nothing past the step that a run goes on from."""

import json
from pathlib import Path
from typing import Any

from xtoken_jax.files import replaced_file
from xtoken_jax.processes import is_first

# What differs between two runs that are the same.
TIMINGS = ("tokens_per_second", "data_seconds")


class MetricsLog:
    """Appends to a JSONL file; steps after `step` are dropped from it on opening.

    Of several processes the first writes.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        self._file = None
        if not is_first():
            return
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            write_text(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a")

    def write(self, record: dict[str, Any]) -> None:
        """Append a record and hand it to the system at once."""
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def __enter__(self) -> "MetricsLog":
        """The log is open from its making on."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):  # a line that a kill cut short
        return float("inf")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
