"""`xtoken prepare CONFIG [--workers N] [--FIELD VALUE ...]`."""

import os
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
    from xtoken_jax.data import RowCounts
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
    shards = manifest["shards"]
    counts = sum((RowCounts.from_dict(shard["counts"]) for shard in shards), RowCounts())
    OUT.print(
        f"{config.data.prepared}: {counts.documents:,} documents ({counts.cut:,} cut) in "
        f"{counts.rows:,} rows, {len(shards)} shards",
        soft_wrap=True,
    )
    lengths = setup.row_lengths(config)
    sides = [("student", lengths.student, counts.tokens)]
    sides += [(n, length, counts.teachers[n].tokens) for n, length in lengths.teachers.items()]
    for name, length, tokens in sides:
        used = tokens / (counts.rows * length)
        OUT.print(f"{name}: {tokens:,} tokens, {used:.1%} of the places", soft_wrap=True)
    if tally.dropped:
        OUT.print(f"left out: {tally}", soft_wrap=True)
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
        self._documents += shard["counts"]["documents"]
        self._tokens += shard["counts"]["tokens"]
        told = f"{self._shards} shards, {self._documents:,} documents, {self._tokens:,} tokens"
        self._progress.update(self._task, description=told)
