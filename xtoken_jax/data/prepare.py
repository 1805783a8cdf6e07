"""Sources to shards of packed rows, in parallel processes, shard by shard."""

import hashlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xtoken_jax.data.chat import ChatOptions
from xtoken_jax.data.counts import count_rows
from xtoken_jax.data.example import Example, Lengths
from xtoken_jax.data.examples import try_examples
from xtoken_jax.data.prepared import FORMAT, MANIFEST, read_manifest, write_shard
from xtoken_jax.data.problems import Problem, Tally
from xtoken_jax.data.records import Chat, Document, Item
from xtoken_jax.data.rows import Rows, pack
from xtoken_jax.errors import XTokenError
from xtoken_jax.files import replaced_file
from xtoken_jax.text import ByteTokenizer

_BLOCK_BYTES = 8 << 20  # also what an interruption loses


@dataclass(frozen=True)
class Plan:
    """All that decides which rows come from a document.

    Attributes:
        student: The student's tokenizer.
        teachers: Each teacher's, by name.
        lengths: Of the rows.
        chat: For conversations.
        description: The same in plain values, with the sources.
    """

    student: ByteTokenizer
    teachers: Mapping[str, ByteTokenizer]
    lengths: Lengths
    chat: ChatOptions | None
    description: dict[str, Any]


@dataclass(frozen=True)
class Packed:
    """What became of a block of documents.

    Attributes:
        rows: Packed.
        examples: In them, in the documents' order.
        problems: Of the documents that are not.
    """

    rows: Rows
    examples: list[Example]
    problems: list[Problem]


def pack_block(documents: Sequence[Document | Chat], plan: Plan, *, number: int) -> Packed:
    """Tokenise, align and pack documents, in an order that only the block's number decides."""
    made = try_examples(documents, plan.student, plan.teachers, plan.lengths, chat=plan.chat)
    examples = [example for example in made if isinstance(example, Example)]
    problems = [problem for problem in made if isinstance(problem, Problem)]
    draw = np.random.default_rng(number)
    rows = pack([examples[i] for i in draw.permutation(len(examples))], plan.lengths)
    return Packed(rows, examples, problems)


def document_blocks(
    items: Iterable[Item], tally: Tally, *, block_bytes: int = _BLOCK_BYTES
) -> Iterator[list[Document | Chat]]:
    """The good records of a source, so many at a time."""
    documents: list[Document | Chat] = []
    size = 0
    for document in tally.good(items):
        documents.append(document)
        size += _size(document)
        if size >= block_bytes:
            yield documents
            documents, size = [], 0
    if documents:
        yield documents


@dataclass(frozen=True)
class _Block:
    """Documents of one shard."""

    source: int
    number: int
    documents: list[Document | Chat]
    digest: str

    @property
    def file(self) -> str:
        return f"source-{self.source:02d}-{self.number:05d}.arrayrecord"


def prepare(
    directory: Path,
    sources: Sequence[Callable[[], Iterable[Item]]],
    make_plan: Callable[[], Plan],
    tally: Tally,
    *,
    files: Sequence[Path] = (),
    workers: int = 1,
    block_bytes: int = _BLOCK_BYTES,
    progress: Callable[[dict[str, Any]], None] = lambda shard: None,
) -> dict[str, Any]:
    """Tokenise, align and pack all sources; shards that are there already are kept.

    Args:
        directory: Gets the shards and, in the end, the manifest.
        sources: What to call for the records of each source.
        make_plan: Called here and in each process; must be importable there.
        tally: Deals with bad records.
        files: Of the sources, to hash into the manifest.
        workers: Processes; 1 works in this one.
        block_bytes: Text of a shard; a process holds as much at a time.
        progress: Called with each finished shard.

    Returns:
        The manifest.

    Raises:
        XTokenError: a record is bad and that is not allowed, or nothing is left.
    """
    plan = make_plan()
    blocks = _blocks(sources, plan, tally, block_bytes)
    shards: list[dict[str, Any]] = []
    for shard in _made(directory, blocks, plan, make_plan, workers, tally):
        _add_problems(tally, shard)
        shards.append(shard)
        progress(shard)
    tally.check()
    shards = sorted((s for s in shards if s["rows"]), key=lambda shard: shard["file"])
    if not shards:
        raise XTokenError("`data.train` must hold at least one document that can be used, got none")
    manifest = {
        "format": FORMAT,
        "plan": plan.description,
        "files": {str(path): _file_digest(path) for path in files},
        "shards": shards,
        "dropped": dict(tally.dropped),
        "examples": tally.examples,
    }
    with replaced_file(directory / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return read_manifest(directory)


def _blocks(
    sources: Sequence[Callable[[], Iterable[Item]]], plan: Plan, tally: Tally, block_bytes: int
) -> Iterator[_Block]:
    for source, read in enumerate(sources):
        found = document_blocks(read(), tally, block_bytes=block_bytes)
        for number, documents in enumerate(found):
            yield _block(source, number, documents, plan)


def _size(document: Document | Chat) -> int:
    if isinstance(document, Document):
        return len(document.text)
    return sum(len(message["content"]) for message in document.messages)


def _block(source: int, number: int, documents: list[Document | Chat], plan: Plan) -> _Block:
    own = {name: value for name, value in plan.description.items() if name != "sources"}
    own["format"] = FORMAT
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode())
    for document in documents:
        digest.update(json.dumps(asdict(document), sort_keys=True).encode())
    return _Block(source, number, documents, digest.hexdigest())


def _made(
    directory: Path,
    blocks: Iterable[_Block],
    plan: Plan,
    make_plan: Callable[[], Plan],
    workers: int,
    tally: Tally,
) -> Iterator[dict[str, Any]]:
    """Summaries of the shards, as they are finished."""
    if workers == 1:
        for block in blocks:
            yield _finished(directory, block) or _make_shard(directory, block, plan)
        return
    # Not forked: the process may have threads of its own, and JAX.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (make_plan,)) as pool:
        waiting: list[Future[dict[str, Any]]] = []
        try:
            for block in blocks:
                if shard := _finished(directory, block):
                    yield shard
                    continue
                waiting.append(pool.submit(_work, directory, block))
                if len(waiting) > 2 * workers:  # so that few blocks are in memory
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            pool.shutdown(cancel_futures=True)


_PLAN: Plan | None = None  # of a worker process


def _start_worker(make_plan: Callable[[], Plan]) -> None:
    global _PLAN
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _PLAN = make_plan()


def _work(directory: Path, block: _Block) -> dict[str, Any]:
    assert _PLAN is not None
    return _make_shard(directory, block, _PLAN)


def _finished(directory: Path, block: _Block) -> dict[str, Any] | None:
    """The summary of a shard that an earlier preparation has finished."""
    try:
        shard = json.loads((directory / block.file).with_suffix(".json").read_text())
        is_whole = not shard["rows"] or (directory / block.file).stat().st_size == shard["bytes"]
    except (OSError, ValueError, KeyError):
        return None
    return shard if is_whole and shard["block"] == block.digest else None


def _make_shard(directory: Path, block: _Block, plan: Plan) -> dict[str, Any]:
    packed = pack_block(block.documents, plan, number=block.number)
    rows, problems = packed.rows, packed.problems
    path = directory / block.file
    if len(rows):
        write_shard(path, rows)
    shard = {
        "file": block.file,
        "source": block.source,
        "block": block.digest,
        "rows": len(rows),
        "bytes": path.stat().st_size if len(rows) else 0,
        "counts": count_rows(rows).to_dict(),
        "dropped": dict(Counter(problem.kind for problem in problems)),
        "examples": {problem.kind: problem.message for problem in reversed(problems)},
    }
    # Last, because its presence says that the shard is whole.
    with replaced_file(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(shard), encoding="utf-8")
    return shard


def _add_problems(tally: Tally, shard: Mapping[str, Any]) -> None:
    """Of those, more were let through by the sources than are good."""
    for kind, count in shard["dropped"].items():
        tally.add(Problem(kind, shard["examples"][kind]), passed_before=True, count=count)


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
