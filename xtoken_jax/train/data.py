"""What a run trains on, from its config."""

import dataclasses
from collections.abc import Iterator, Mapping

from xtoken_jax.config import DataConfig, SourceConfig
from xtoken_jax.data import (
    ChatOptions,
    ChatTemplate,
    Document,
    Example,
    Item,
    Lengths,
    Problem,
    Tally,
    documents_of,
    read_source,
    try_examples,
)
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.text import ByteTokenizer, resolve

STUDENT = "student"


def read_items(source: SourceConfig) -> Iterator[Item]:
    """The records of a source, good and bad."""
    options = dataclasses.asdict(source)
    options.pop("weight")
    return read_source(**options)


def read_documents(source: SourceConfig) -> list[Document]:
    """The texts of a source, all of which must be good; see `documents_of`."""
    return documents_of(read_items(source))


def load_examples(
    data: DataConfig,
    student: ByteTokenizer,
    teachers: Mapping[str, ByteTokenizer],
    lengths: Lengths,
    tally: Tally,
) -> list[Example]:
    """Everything to train on, tokenised and aligned, in memory.

    Raises:
        XTokenError: a record is bad and that is not allowed, or none is good.
    """
    chat = chat_options(data, student, teachers)
    examples: list[Example] = []
    for source in data.train:
        documents = list(tally.good(read_items(source)))
        for made in try_examples(documents, student, teachers, lengths, chat=chat):
            if isinstance(made, Problem):
                tally.add(made, passed_before=True)
            else:
                examples.append(made)
    tally.check()
    if not examples:
        raise XTokenError("`data.train` must hold at least one document that can be used, got none")
    return examples


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
    return ChatTemplate.load(directory, path=path, arguments=arguments)
