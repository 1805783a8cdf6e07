"""`xtoken prepare CONFIG [--workers N] [--FIELD VALUE ...]`."""

import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from xtoken_jax.cli.experiment import read_experiment, take_number
from xtoken_jax.cli.output import OUT
from xtoken_jax.errors import UsageError


def run_prepare(arguments: list[str]) -> int:
    """Tokenise, align and pack the sources of a config into `data.prepared`."""
    arguments = list(arguments)
    workers = take_number(arguments, "--workers", least=1) or os.cpu_count() or 1
    usage = ["[--workers N] ", "--workers: processes; default: one for each core"]
    config = read_experiment("prepare", arguments, usage=usage)
    if config.data.prepared is None:
        raise UsageError("`data.prepared` must name the directory to prepare, got none")
    from xtoken_jax.train import setup
    from xtoken_jax.train.data import prepare_rows

    student, teachers = setup.tokenizer_references(config)
    with _Bar() as bar:
        manifest, tally = prepare_rows(
            config.data,
            student,
            teachers,
            setup.row_lengths(config),
            workers=workers,
            progress=bar.add,
        )
    directory = Path(config.data.prepared)
    shards = manifest["shards"]
    rows = sum(shard["rows"] for shard in shards)
    documents = sum(shard["documents"] for shard in shards)
    cut = sum(shard["cut"] for shard in shards)
    OUT.print(
        f"{directory}: {documents:,} documents ({cut:,} cut) in {rows:,} rows, {len(shards)} shards"
    )
    lengths = setup.row_lengths(config)
    counts = [("student", lengths.student, [shard["tokens"]["student"] for shard in shards])]
    for name, length in lengths.teachers.items():
        counts.append((name, length, [shard["tokens"]["teachers"][name] for shard in shards]))
    for name, length, tokens in counts:
        used = sum(tokens) / (rows * length)
        OUT.print(f"{name}: {sum(tokens):,} tokens, {used:.1%} of the places")
    if tally.dropped:
        OUT.print(f"left out: {tally}")
    return 0


class _Bar:
    """Shards, documents and tokens so far, on stderr."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("loading tokenizers", total=None)
        self._shards = self._documents = self._tokens = 0

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def add(self, shard: dict[str, Any]) -> None:
        """Count a finished shard."""
        self._shards += 1
        self._documents += shard["documents"]
        self._tokens += shard["tokens"]["student"]
        told = f"{self._shards} shards, {self._documents:,} documents, {self._tokens:,} tokens"
        self._progress.update(self._task, description=told)
