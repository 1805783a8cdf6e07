"""Chat templates: what one side makes of a conversation, and where in it each message stands."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.text.tokenizer_files import declared_tokens

# Private-use characters that mark where a message begins (even) and ends (odd) in what a template
# makes; no template changes them, and none is left in what is tokenised.
_MARKS = 0xF0000
_MARKS_END = 0xFFFFE

# The function by which a template asks for the time, and what it is told: the date that Llama-3's
# own template falls back to.
_ASKS_DATE = "strftime_now"
TODAY = date(2024, 7, 26)


@dataclass(frozen=True)
class Part:
    """Where a message stands in a rendered conversation, in characters; None where it does not.

    Attributes:
        start: Of what somebody says; of an assistant, where it begins to write.
        end: Behind the last character of the message's content.
    """

    start: int | None
    end: int | None


@dataclass(frozen=True)
class Rendered:
    """A conversation as one side reads it, and its messages' places."""

    text: str
    parts: list[Part]


class ChatTemplate:
    """One side's template with its arguments.

    Args:
        template: Jinja.
        declared: The tokenizer's control tokens by what they are for, such as `bos_token`.
        arguments: Of the template.
        today: What a template that asks for today's date gets.

    Attributes:
        fingerprint: A hash of all that decides what it writes.
        asks_date: Whether it may write today's date.

    Raises:
        XTokenError: the template cannot be read.
    """

    def __init__(
        self,
        template: str,
        declared: Mapping[str, str],
        arguments: Mapping[str, Any],
        *,
        today: date = TODAY,
    ) -> None:
        self.asks_date = _ASKS_DATE in template
        if self.asks_date:
            # The day on which it runs would make other tokens of a text every day.
            template = _date_macro(today) + template
        # Only renders: a tokenizer without a vocabulary does.
        self._renderer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.BPE()), chat_template=template, **declared
        )
        self._arguments = dict(arguments)
        decides = [template, dict(declared), self._arguments]
        identity = json.dumps(decides, sort_keys=True)
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()
        self._knows_system = self._probe_system()
        self._openings = self._probe_openings()

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        path: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        today: date = TODAY,
    ) -> "ChatTemplate":
        """The template of a tokenizer's directory, or of a file.

        Raises:
            UsageError: there is none.
        """
        template = _template_text(directory) if path is None else _file_text(path)
        return cls(template, declared_tokens(directory), arguments or {}, today=today)

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None
    ) -> Rendered:
        """Render, with the place of each message.

        A system message goes before the first user's where the template has no place for it.

        Raises:
            XTokenError: the template fails, leaves out tool calls, or hides what it does with the
                messages.
        """
        text = self._text(self._folded(messages), tools)
        if self._leaves_out_calls(text, messages, tools):
            # Else an answer that is a call would be learnt as an answer that says nothing.
            raise XTokenError("it must write tool calls, but leaves them out")
        marked = self._text(self._folded(_marked(messages)), tools)
        unmarked, places = _read_marks(marked, len(messages))
        if unmarked != text:
            raise XTokenError("it must treat a message alike whatever characters it is made of")
        return Rendered(text, self._parts(text, messages, places))

    def opened(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """What a model reads before it answers these messages.

        Raises:
            XTokenError: the template fails.
        """
        return self._text(self._folded(messages), None, opens=True)

    def _text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None,
        *,
        opens: bool = False,
    ) -> str:
        try:
            rendered = self._renderer.apply_chat_template(
                [dict(message) for message in messages],
                tools=None if tools is None else list(tools),
                add_generation_prompt=opens,
                tokenize=False,
                **self._arguments,
            )
        except Exception as error:  # a template is a program, and may fail in any way
            raise XTokenError(f"{type(error).__name__}: {error}") from error
        return cast(str, rendered)

    def _leaves_out_calls(
        self, text: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None
    ) -> bool:
        if not any("tool_calls" in message for message in messages):
            return False
        without = [
            {name: value for name, value in message.items() if name != "tool_calls"}
            for message in messages
        ]
        try:
            return self._text(self._folded(without), tools) == text
        except XTokenError:  # an answer needs words or calls there
            return False

    def _probe_system(self) -> bool:
        messages = [{"role": "system", "content": "\uf8ff"}, {"role": "user", "content": "a"}]
        try:
            return "\uf8ff" in self._text(messages, None)
        except XTokenError:
            return False

    def _probe_openings(self) -> list[str]:
        """What comes before an assistant's words, longest first."""
        messages = [{"role": "user", "content": "a"}]
        closed, opened = (self._text(messages, None, opens=opens) for opens in (False, True))
        same = takewhile(lambda pair: pair[0] == pair[1], zip(closed, opened, strict=False))
        opening = opened[len(list(same)) :]
        # Qwen3 opens with an empty block of thoughts where they are off, but not in turns gone by.
        forms = dict.fromkeys([opening, opening.partition("<think>")[0]])
        return [form for form in forms if form]

    def _folded(self, messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        if self._knows_system or len(messages) < 2:
            return messages
        first, second, *rest = messages
        if first["role"] != "system" or second["role"] != "user":
            return messages
        both = f"{first['content']}\n\n{second['content']}"
        return [{**second, "content": both}, *rest]

    def _parts(
        self, text: str, messages: Sequence[Mapping[str, Any]], places: Sequence[Part]
    ) -> list[Part]:
        parts, cursor = [], 0
        for number, (message, place) in enumerate(zip(messages, places, strict=True)):
            start = place.start
            if message["role"] == "assistant":
                later = [
                    at for at in (_first(place) for place in places[number:]) if at is not None
                ]
                opened = self._opened(text, cursor, min(later, default=len(text)))
                start = start if opened is None else opened
            end = place.end if place.end is not None else start
            if start is None:
                start = end
            parts.append(Part(start, end))
            cursor = cursor if end is None else end
        return parts

    def _opened(self, text: str, cursor: int, bound: int) -> int | None:
        """Where an assistant begins to write, between the message before and its own content."""
        found = [
            (at, -len(form))
            for form in self._openings
            if 0 <= (at := text.find(form, cursor)) <= bound - len(form)
        ]
        if not found:
            return None
        at, negative_length = min(found)
        return at - negative_length


def _date_macro(today: date) -> str:
    """Jinja that puts a day in the place of transformers' clock, at midnight.

    A macro, because transformers hands no functions to a template.
    """
    midnight = datetime.combine(today, time())
    filters = "".join(
        f"|replace('{directive}','{midnight.strftime(directive)}')"
        for letter in "aAbBcdeFHIjmMpSuUVwWxXyY"
        for directive in (f"%{letter}", f"%-{letter}")
    )
    # The line's end is left out, as behind every block.
    return f"{{%- macro {_ASKS_DATE}(form) -%}}{{{{ form{filters} }}}}{{%- endmacro %}}\n"


def _first(place: Part) -> int | None:
    return place.end if place.start is None else place.start


def _marked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    marked = []
    for number, message in enumerate(messages):
        content = message["content"]
        core = content.strip()
        if core:
            # Inside the outer white space, which a template may trim.
            before, _, after = content.partition(core)
            start, end = chr(_MARKS + 2 * number), chr(_MARKS + 2 * number + 1)
            content = f"{before}{start}{core}{end}{after}"
        marked.append({**message, "content": content})
    return marked


def _read_marks(text: str, num_messages: int) -> tuple[str, list[Part]]:
    """The text without marks, and where the first of each was."""
    places: dict[int, int] = {}
    plain: list[str] = []
    for character in text:
        mark = ord(character) - _MARKS
        if 0 <= mark < _MARKS_END - _MARKS:
            places.setdefault(mark, len(plain))
        else:
            plain.append(character)
    parts = [Part(places.get(2 * i), places.get(2 * i + 1)) for i in range(num_messages)]
    return "".join(plain), parts


def _template_text(directory: Path) -> str:
    beside = directory / "chat_template.jinja"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    path = directory / "tokenizer_config.json"
    template = None
    if path.is_file():
        template = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
    if isinstance(template, list):  # several by name
        by_name = {entry["name"]: entry["template"] for entry in template}
        template = by_name.get("default")
    if not isinstance(template, str):
        raise UsageError(
            f"{directory} must have a chat template for data of format messages, got none; name a "
            "file with one in `data.chat_templates`"
        )
    return template


def _file_text(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"`data.chat_templates` must name a template, got {path}: {error}"
        ) from error
