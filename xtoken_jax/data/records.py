"""One record of a file as a document, a prompt with its completion, or a chat."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from xtoken_jax.data.problems import Problem
from xtoken_jax.errors import UsageError, XTokenError

Format = Literal["text", "completion", "messages"]
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Document:
    """One text and where it came from.

    Attributes:
        text: Of a completion, prompt and completion end to end.
        record: `FILE:RECORD`, or `GENERATOR:SEED:RECORD`.
        prompt_length: Characters at the beginning that are read but not learnt.
    """

    text: str
    record: str
    prompt_length: int = 0


@dataclass(frozen=True)
class Chat:
    """A conversation.

    Attributes:
        messages: `role` and `content`, and what else templates know, such as `tool_calls`.
        tools: What the model may call, as JSON schemas; None for no tools.
        record: Where it came from.
        first_learnt: Messages before this one are read but not learnt.
    """

    messages: tuple[Mapping[str, Any], ...]
    record: str
    tools: tuple[Any, ...] | None = None
    first_learnt: int = 0


Item = Document | Chat | Problem


def documents_of(items: Iterable[Item]) -> list[Document]:
    """Texts, all of which must be good.

    Raises:
        XTokenError: one is not.
        UsageError: one is a conversation.
    """
    documents = []
    for item in items:
        if isinstance(item, Problem):
            raise XTokenError(item.message)
        if isinstance(item, Chat):
            raise UsageError(f"{item.record}: a text is needed here, got messages")
        documents.append(item)
    return documents


def read_record(content: Any, record: str, *, format: Format, field: str) -> Item:
    """Take from a parsed record what its format says.

    Args:
        content: From JSON or from a table.
        record: Where it came from.
        format: `text` takes `field`; `completion` takes `prompt` and `completion`, which are both
            texts or both lists of messages; `messages` takes `messages`, and `tools` if there are.
        field: Of a text.
    """
    if not isinstance(content, Mapping):
        return Problem("wrong type", f"{record}: must be an object, got {content!r:.60}")
    if format == "text":
        text = _text(content, field, record)
        return text if isinstance(text, Problem) else Document(text, record)
    if format == "messages":
        return _chat(content, record)
    return _completion(content, record)


def _text(content: Mapping[str, Any], field: str, record: str) -> str | Problem:
    text = content.get(field)
    must = f"{record}: `{field}` must be a string that is not empty, got {text!r:.60}"
    if text is None:
        return Problem("missing field", must)
    if not isinstance(text, str):
        return Problem("wrong type", must)
    if not text:
        return Problem("empty", must)
    if not _is_unicode(text):
        return Problem("not UTF-8", f"{record}: `{field}` must not have half a surrogate pair")
    return text


def _is_unicode(text: str) -> bool:
    """False for halves of surrogate pairs, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _completion(content: Mapping[str, Any], record: str) -> Item:
    if isinstance(content.get("prompt"), list) and isinstance(content.get("completion"), list):
        messages = [*content["prompt"], *content["completion"]]
        return _chat({**content, "messages": messages}, record, first=len(content["prompt"]))
    prompt = _text(content, "prompt", record)
    completion = _text(content, "completion", record)
    for part in (prompt, completion):
        if isinstance(part, Problem):
            return part
    return Document(f"{prompt}{completion}", record, prompt_length=len(str(prompt)))


def _chat(content: Mapping[str, Any], record: str, *, first: int = 0) -> Item:
    messages = content.get("messages")
    if messages is None:
        return Problem("missing field", f"{record}: `messages` must be a list, got None")
    if not isinstance(messages, list):
        return Problem("wrong type", f"{record}: `messages` must be a list, got {messages!r:.60}")
    if not messages:
        return Problem("empty", f"{record}: `messages` must not be empty")
    checked = []
    for number, message in enumerate(messages):
        good = _message(message, f"{record}: message {number}")
        if isinstance(good, Problem):
            return good
        checked.append(good)
    tools = content.get("tools") or None
    if tools is not None and not isinstance(tools, list):
        return Problem("wrong type", f"{record}: `tools` must be a list, got {tools!r:.60}")
    return Chat(tuple(checked), record, None if tools is None else tuple(tools), first)


def _message(message: Any, place: str) -> dict[str, Any] | Problem:
    if not isinstance(message, Mapping):
        return Problem("wrong type", f"{place} must be an object, got {message!r:.60}")
    # A table has every field in every row, None where a record has none; and no calls are none.
    message = {name: value for name, value in message.items() if value is not None}
    if not message.get("tool_calls", True):
        del message["tool_calls"]
    role = message.get("role")
    if role not in ROLES:
        kind = "missing field" if role is None else "unknown role"
        return Problem(kind, f"{place}: `role` must be one of {', '.join(ROLES)}, got {role!r:.60}")
    text = _joined(message.get("content", ""))
    if text is None:
        return Problem(
            "wrong type",
            f"{place}: `content` must be a string or parts of text, got {message['content']!r:.60}",
        )
    if not _is_unicode(text):
        return Problem("not UTF-8", f"{place}: `content` must not have half a surrogate pair")
    return {**message, "content": text}


def _joined(content: Any) -> str | None:
    """A message's text, which may come as a list of parts of type `text`."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(parts) else None
    return content if isinstance(content, str) else None
