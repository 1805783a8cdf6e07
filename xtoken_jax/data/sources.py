"""Where records come from: files, data sets, and two generators that need no file."""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from xtoken_jax.data.files import DamagedFileError, blocks, lines, matches
from xtoken_jax.data.problems import Problem
from xtoken_jax.data.records import Document, Format, Item, read_record
from xtoken_jax.errors import UsageError, XTokenError

SourceKind = Literal["text", "jsonl", "parquet", "hf", "gsm_symbolic", "python_docs"]
Part = Literal["all", "train", "heldout"]

_HELDOUT_EVERY = 20
_PARQUET_ROWS = 1024  # read at a time


def read_source(
    kind: SourceKind,
    *,
    path: str | None = None,
    field: str = "text",
    format: Format = "text",
    name: str | None = None,
    split: str = "train",
    size: int = 1000,
    seed: int = 0,
    max_bytes: int = 600,
    part: Part = "all",
) -> Iterator[Item]:
    """The records of one source, one at a time, in an order that is always the same."""
    if kind == "text":
        items: Iterable[Item] = text_files(str(path))
    elif kind == "jsonl":
        items = jsonl_files(str(path), field=field, format=format)
    elif kind == "parquet":
        items = parquet_files(str(path), field=field, format=format)
    elif kind == "hf":
        items = hf_dataset(str(path), name=name, split=split, field=field, format=format)
    elif kind == "gsm_symbolic":
        items = gsm_symbolic(size, seed=seed)
    else:
        items = python_docs(max_bytes=max_bytes)
    return part_of(items, part)


def part_of(items: Iterable[Item], part: Part) -> Iterator[Item]:
    """Every 20th record is `heldout`, the others are `train`; a bad record is in either."""
    number = 0
    for item in items:
        if isinstance(item, Problem):
            yield item
            continue
        if part == "all" or (number % _HELDOUT_EVERY == 0) == (part == "heldout"):
            yield item
        number += 1


def text_files(pattern: str) -> Iterator[Item]:
    """Each file that a glob names, whole, as one document; UTF-8, `.gz` and `.zst` unpacked.

    Raises:
        UsageError: no file matches.
    """
    for path in matches(pattern):
        yield _text_file(path)


def _text_file(path: Path) -> Item:
    try:
        text = b"".join(blocks(path)).decode()
    except UnicodeDecodeError as error:
        return Problem("not UTF-8", f"{path} must be UTF-8, got a bad byte at {error.start}")
    except DamagedFileError as error:
        return Problem("damaged file", f"{path} must be a whole file, got: {error}")
    if not text:
        return Problem("empty", f"{path} must hold text, but is empty")
    return Document(text, str(path))


def jsonl_files(pattern: str, *, field: str = "text", format: Format = "text") -> Iterator[Item]:
    """One record from each line, over the files that a glob names; see `read_record`.

    Raises:
        UsageError: no file matches.
    """
    for path in matches(pattern):
        yield from _jsonl_file(path, field, format)


def _jsonl_file(path: Path, field: str, format: Format) -> Iterator[Item]:
    number = found = 0
    try:
        for number, line in enumerate(lines(path), start=1):
            if line.strip():
                found += 1
                yield _json_record(line, f"{path}:{number}", field, format)
    except DamagedFileError as error:
        where = f"{path}:{number + 1}"
        yield Problem("damaged file", f"{where}: must be a whole file, got: {error}")
        return
    if not found:
        yield Problem("empty", f"{path} must hold at least one record, but is empty")


def _json_record(line: bytes, record: str, field: str, format: Format) -> Item:
    try:
        content = json.loads(line)
    except UnicodeDecodeError as error:
        return Problem("not UTF-8", f"{record}: must be UTF-8, got a bad byte at {error.start}")
    except (ValueError, RecursionError) as error:
        return Problem("not JSON", f"{record}: must be JSON, got: {error}")
    return read_record(content, record, format=format, field=field)


def parquet_files(pattern: str, *, field: str = "text", format: Format = "text") -> Iterator[Item]:
    """One record from each row, over the files that a glob names; see `read_record`.

    Raises:
        UsageError: no file matches, or pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UsageError("source parquet needs pyarrow: pip install 'xtoken_jax[data]'") from error
    wanted = columns(field, format)
    for path in matches(pattern):
        number = 0
        try:
            with parquet.ParquetFile(path) as file:
                names = [name for name in wanted if name in file.schema_arrow.names]
                for batch in file.iter_batches(_PARQUET_ROWS, columns=names):
                    for content in batch.to_pylist():
                        number += 1
                        record = f"{path}:{number}"
                        yield read_record(content, record, format=format, field=field)
        except (ArrowException, OSError) as error:
            where = f"{path}:{number + 1}"
            yield Problem("damaged file", f"{where}: must be whole Parquet, got: {error}")


def columns(field: str, format: Format) -> Sequence[str]:
    """The fields of a record that a format reads."""
    if format == "text":
        return [field]
    return ["messages", "tools"] if format == "messages" else ["prompt", "completion", "tools"]


def hf_dataset(
    path: str, *, name: str | None, split: str, field: str = "text", format: Format = "text"
) -> Iterator[Item]:
    """The records of a Hugging Face data set, streamed; by its name or its local directory.

    Raises:
        UsageError: `datasets` is not installed, or there is no such data set or split.
        XTokenError: reading stops before the end; nobody knows how many records are lost then.
    """
    try:
        import datasets
    except ImportError as error:
        raise UsageError("source hf needs datasets: pip install 'xtoken_jax[data]'") from error
    rows = iter(_hf_rows(datasets, path, name, split))
    for number in itertools.count():
        try:
            content = next(rows)
        except StopIteration:
            return
        except Exception as error:  # readers of many formats, from disks and networks
            raise XTokenError(
                f"{path}:{split} must be readable to its end, but after {number} records came "
                f"{type(error).__name__}: {error!s:.200}"
            ) from error
        yield read_record(content, f"{path}:{split}:{number}", format=format, field=field)


def _hf_rows(datasets: Any, path: str, name: str | None, split: str) -> Iterable[Any]:
    directory = Path(path).expanduser()
    try:
        if any((directory / file).is_file() for file in ("dataset_dict.json", "state.json")):
            saved = datasets.load_from_disk(str(directory))
            return saved[split] if isinstance(saved, datasets.DatasetDict) else saved
        named = str(directory) if directory.is_dir() else path
        return datasets.load_dataset(named, name, split=split, streaming=True)
    except (OSError, ValueError, KeyError) as error:
        # A missing split is a ValueError or a KeyError, no such data set an OSError.
        summary = " ".join(str(error).split())
        raise UsageError(
            f"`path` must name a data set with the split {split!r}, got {path}: {summary:.200}"
        ) from error


def gsm_symbolic(size: int, *, seed: int) -> Iterator[Document]:
    """GSM8k-style word problems with worked answers, generated.

    Source: reasoning-gym's `gsm_symbolic`, after GSM-Symbolic (arXiv 2410.05229).

    Raises:
        UsageError: reasoning-gym is not installed.
    """
    try:
        import reasoning_gym
    except ImportError as error:
        raise UsageError(
            "source gsm_symbolic needs reasoning-gym: pip install 'xtoken_jax[quickstart]'"
        ) from error
    problems = reasoning_gym.create_dataset("gsm_symbolic", size=size, seed=seed)
    for index, problem in enumerate(problems):
        text = f"Question: {problem['question']}\nAnswer: {problem['metadata']['answer_cot']}"
        yield Document(text, f"gsm_symbolic:{seed}:{index}")


def python_docs(*, max_bytes: int = 600) -> Iterator[Document]:
    """The language reference that Python itself carries, in passages of whole paragraphs.

    Args:
        max_bytes: A passage ends before the paragraph that would take it past this; a longer
            paragraph is one passage.
    """
    from pydoc_data.topics import topics

    for topic in sorted(topics):
        for index, passage in enumerate(_passages(topics[topic], max_bytes)):
            yield Document(passage, f"python_docs:{topic}:{index}")


def _passages(text: str, max_bytes: int) -> Iterator[str]:
    passage = ""
    for paragraph in text.split("\n\n"):
        longer = f"{passage}\n\n{paragraph}" if passage else paragraph
        if passage and len(longer.encode()) > max_bytes:
            yield passage
            longer = paragraph
        passage = longer
    if passage.strip():
        yield passage
