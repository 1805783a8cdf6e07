"""What a run trains on, from its config."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xtoken_jax.config import DataConfig, SourceConfig
from xtoken_jax.data import (
    ChatOptions,
    ChatTemplate,
    Document,
    Item,
    Lengths,
    Plan,
    PreparedRows,
    Rows,
    Tally,
    check_plan,
    document_blocks,
    documents_of,
    joined,
    matches,
    pack,
    pack_block,
    prepare,
    read_source,
)
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.text import ByteTokenizer, resolve
from xtoken_jax.train.fingerprints import Fingerprints

STUDENT = "student"


def read_items(source: SourceConfig) -> Iterator[Item]:
    """The records of a source, good and bad."""
    options = dataclasses.asdict(source)
    options.pop("weight")
    return read_source(**options)


def read_documents(source: SourceConfig) -> list[Document]:
    """The texts of a source, all of which must be good; see `documents_of`."""
    return documents_of(read_items(source))


def load_rows(data: DataConfig, plan: Plan, tally: Tally) -> Rows | PreparedRows:
    """Everything to train on: as it was prepared, else tokenised, aligned and packed in memory.

    Raises:
        XTokenError: a record is bad and that is not allowed, none is good, or what was prepared
            does not fit.
        UsageError: `data.prepared` was not prepared.
    """
    if data.prepared is not None:
        directory = Path(data.prepared)
        rows = PreparedRows(directory)
        check_plan(rows.manifest, plan.description, directory)
        tally.recall(rows.manifest["dropped"], rows.manifest["examples"])
        return rows
    hashes = Fingerprints()
    parts = [_source_rows(source, plan, tally, hashes) for source in data.train]
    tally.check()
    return joined(_filled(parts), hashes.hexdigests())


def _source_rows(source: SourceConfig, plan: Plan, tally: Tally, hashes: Fingerprints) -> Rows:
    """The rows of a source, packed block by block as `prepare` does it."""
    parts = [pack([], plan.lengths)]
    for number, documents in enumerate(document_blocks(read_items(source), tally)):
        packed = pack_block(documents, plan, number=number)
        for problem in packed.problems:
            tally.add(problem, passed_before=True)
        hashes.add(packed.examples)
        parts.append(packed.rows)
    return joined(parts, {})


def _filled(parts: list[Rows]) -> list[Rows]:
    for number, part in enumerate(parts):
        if not len(part):
            raise XTokenError(
                f"`data.train.{number}` must hold at least one document that can be used, got none"
            )
    return parts


def make_plan(
    data: DataConfig,
    student: ByteTokenizer,
    teachers: Mapping[str, ByteTokenizer],
    lengths: Lengths,
) -> Plan:
    """All that decides which rows come from the sources.

    Raises:
        UsageError: a chat template is needed and there is none.
    """
    chat = chat_options(data, student, teachers)
    sides = {STUDENT: student.fingerprint}
    sides |= {f"teacher {name}": teacher.fingerprint for name, teacher in teachers.items()}
    templates = {} if chat is None else {STUDENT: chat.student}
    if chat is not None:
        templates |= {f"teacher {name}": each for name, each in chat.teachers.items()}
    asks_date = any(template.asks_date for template in templates.values())
    sources = [dataclasses.asdict(source) for source in data.train]
    for source in sources:
        source.pop("weight")  # decides only how often a row comes
    description = {
        "tokenizers": sides,
        "chat_templates": {side: template.fingerprint for side, template in templates.items()},
        "chat_date": data.chat_date.isoformat() if asks_date else None,
        "lengths": {"student": lengths.student, "teachers": dict(lengths.teachers)},
        "loss_roles": list(data.loss_roles),
        "sources": sources,
    }
    return Plan(student, teachers, lengths, chat, description)


def load_plan(
    data: DataConfig, student: str, teachers: Mapping[str, str], lengths: Lengths
) -> Plan:
    """`make_plan` from the names of the tokenizers, as a process of its own needs it."""
    loaded = {name: ByteTokenizer.load(reference) for name, reference in teachers.items()}
    return make_plan(data, ByteTokenizer.load(student), loaded, lengths)


def prepare_rows(
    data: DataConfig,
    student: str,
    teachers: Mapping[str, str],
    lengths: Lengths,
    *,
    workers: int,
    progress: Callable[[dict[str, Any]], None],
) -> tuple[dict[str, Any], Tally]:
    """Prepare the sources of a config into `data.prepared`; see `data.prepare`.

    Returns:
        The manifest, and what became of bad records.
    """
    tally = Tally(on_error=data.on_error, max_error_share=data.max_error_share)
    files = [
        path
        for source in data.train
        if source.kind in ("text", "jsonl", "parquet")
        for path in matches(str(source.path))
    ]
    manifest = prepare(
        Path(str(data.prepared)),
        [functools.partial(read_items, source) for source in data.train],
        functools.partial(load_plan, data, student, teachers, lengths),
        tally,
        files=files,
        workers=workers,
        progress=progress,
    )
    return manifest, tally


def mixture_weights(data: DataConfig) -> list[float] | None:
    """The sources' weights, where they have any."""
    weights = [source.weight for source in data.train if source.weight is not None]
    return weights or None


def chat_options(
    data: DataConfig, student: ByteTokenizer, teachers: Mapping[str, ByteTokenizer]
) -> ChatOptions | None:
    """The sides' chat templates, where some source may hold conversations.

    Raises:
        UsageError: a side has none, or an option names a side that there is not.
    """
    names = [STUDENT, *teachers]
    for field in ("chat_templates", "chat_template_kwargs"):
        if unknown := getattr(data, field).keys() - set(names):
            raise UsageError(
                f"`data.{field}` must be of {', '.join(names)}, got {', '.join(sorted(unknown))}"
            )
    formats = {source.format for source in data.train}
    if formats == {"text"}:
        return None
    try:
        student_template = _template(data, STUDENT, student)
        teacher_templates = {name: _template(data, name, teachers[name]) for name in teachers}
    except UsageError:
        if "messages" in formats:
            raise
        return None  # prompts and completions need templates only where they are messages
    return ChatOptions(student_template, teacher_templates, data.loss_roles)


def _template(data: DataConfig, side: str, tokenizer: ByteTokenizer) -> ChatTemplate:
    directory = resolve(tokenizer.name, weights=False)
    path, arguments = data.chat_templates.get(side), data.chat_template_kwargs.get(side)
    return ChatTemplate.load(directory, path=path, arguments=arguments, today=data.chat_date)
