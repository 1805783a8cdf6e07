"""Where texts come from: files, and two generators that need no file."""

import glob
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xtoken_jax.errors import UsageError, XTokenError


@dataclass(frozen=True)
class Document:
    """One text and where it came from, as `FILE:RECORD` or `GENERATOR:SEED:RECORD`."""

    text: str
    record: str


def text_files(pattern: str) -> list[Document]:
    """Each file that a glob names, whole, as one document; UTF-8.

    Raises:
        UsageError: no file matches.
        XTokenError: a file is empty or not UTF-8.
    """
    return [_text_file(path) for path in _matches(pattern)]


def _text_file(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise XTokenError(f"{path} must be UTF-8, got a bad byte at {error.start}") from error
    if not text:
        raise XTokenError(f"{path} must hold text, but is empty")
    return Document(text, str(path))


def jsonl_files(pattern: str, *, field: str = "text") -> list[Document]:
    """One document from each line's `field`, over the files that a glob names.

    Raises:
        UsageError: no file matches.
        XTokenError: a line is not JSON, or its field is not text (with file and line), or a
            file has no record.
    """
    documents = []
    for path in _matches(pattern):
        records = list(_jsonl_records(path, field))
        if not records:
            raise XTokenError(f"{path} must hold at least one record, but is empty")
        documents += records
    return documents


def _jsonl_records(path: Path, field: str) -> Iterator[Document]:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors alike
            raise XTokenError(f"{path}:{number}: must be JSON, got: {error}") from error
        text = record.get(field) if isinstance(record, dict) else None
        if not isinstance(text, str) or not text:
            raise XTokenError(
                f"{path}:{number}: `{field}` must be a string that is not empty, got {text!r:.60}"
            )
        if not _is_unicode(text):
            raise XTokenError(f"{path}:{number}: `{field}` must not have half a surrogate pair")
        yield Document(text, f"{path}:{number}")


def _is_unicode(text: str) -> bool:
    """False for halves of surrogate pairs, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _matches(pattern: str) -> list[Path]:
    found = glob.glob(os.path.expanduser(pattern), recursive=True)
    files = [path for path in map(Path, sorted(found)) if path.is_file()]
    if not files:
        raise UsageError(f"`path` must name at least one file, but nothing matches {pattern}")
    return files


def gsm_symbolic(size: int, *, seed: int) -> list[Document]:
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
    return [
        Document(
            f"Question: {problem['question']}\nAnswer: {problem['metadata']['answer_cot']}",
            f"gsm_symbolic:{seed}:{index}",
        )
        for index, problem in enumerate(problems)
    ]


def python_docs(*, max_bytes: int = 600) -> list[Document]:
    """The language reference that Python itself carries, in passages of whole paragraphs.

    Args:
        max_bytes: A passage ends before the paragraph that would take it past this; a longer
            paragraph is one passage.
    """
    from pydoc_data.topics import topics

    return [
        Document(passage, f"python_docs:{topic}:{index}")
        for topic in sorted(topics)
        for index, passage in enumerate(_passages(topics[topic], max_bytes))
    ]


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
