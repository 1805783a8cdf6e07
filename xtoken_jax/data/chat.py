"""Conversations on all sides: each reads its own template; messages meet message by message."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xtoken_jax.align import align
from xtoken_jax.data.problems import Problem
from xtoken_jax.data.records import Chat
from xtoken_jax.data.templates import ChatTemplate, Rendered
from xtoken_jax.errors import XTokenError
from xtoken_jax.text import ByteTokenizer, Encoded, Role
from xtoken_jax.text.roles import is_frame

_ENDS = Role.TURN_END | Role.EOS | Role.MESSAGE_END


@dataclass(frozen=True)
class ChatOptions:
    """How conversations are read.

    Attributes:
        student: The student's template.
        teachers: Each teacher's, by name.
        loss_roles: Whose messages are learnt.
    """

    student: ChatTemplate
    teachers: Mapping[str, ChatTemplate]
    loss_roles: Collection[str] = ("assistant",)


@dataclass(frozen=True)
class ChatTokens:
    """One side's tokens of a conversation.

    Attributes:
        ids: int32.
        prefixed: Tokens that begin with a space that the tokenizer put there.
        bounds: Tokens before each message, before its closing token, and behind that one:
            `[messages, 3]`. Of a message without a closing token the last two are equal; of one
            that the template leaves out, all three.
    """

    ids: np.ndarray
    prefixed: np.ndarray
    bounds: np.ndarray


def chat_tokens(
    chat: Chat, tokenizer: ByteTokenizer, template: ChatTemplate
) -> ChatTokens | Problem:
    """Render a conversation as one side does, and tokenise it with its control tokens.

    What a template writes decides about bos and eos. A message that spells a control token of its
    turns would end them, and is refused.
    """
    for number, message in enumerate(chat.messages):
        if spelled := _control_pattern(tokenizer).search(message["content"]):
            return Problem(
                "control token in a message",
                f"{chat.record}: message {number} must not spell {spelled.group()} of "
                f"{tokenizer.name}",
            )
    try:
        rendered = template.render(chat.messages, chat.tools)
    except XTokenError as error:
        return Problem(
            "template failed", f"{chat.record}: the chat template of {tokenizer.name}: {error}"
        )
    encoded = tokenizer.encode([rendered.text], parse_control=True)
    starts_N = np.array(tokenizer.starts(rendered.text, parse_control=True), np.int64)
    ends = [
        index
        for index, id in enumerate(encoded.ids_N.tolist())
        if tokenizer.roles.get(id, Role.NONE) & _ENDS
    ]
    bounds = _bounds(rendered, starts_N, ends)
    return ChatTokens(encoded.ids_N, encoded.prefixed_N, bounds)


@lru_cache(maxsize=16)
def _control_pattern(tokenizer: ByteTokenizer) -> re.Pattern[str]:
    names = [tokenizer.display(id) for id in tokenizer.roles]
    frames = [re.escape(name) for name in names if is_frame(name)]
    return re.compile("|".join(sorted(frames, key=len, reverse=True)) or r"(?!)")


def _bounds(rendered: Rendered, starts_N: np.ndarray, ends: Sequence[int]) -> np.ndarray:
    bounds, cursor = [], 0
    # Tokens that begin before each place; -1 for a message that is not there.
    begins, finishes = (
        [-1 if place is None else int(np.searchsorted(starts_N, place)) for place in places]
        for places in zip(*((part.start, part.end) for part in rendered.parts), strict=True)
    )
    for number, (begin, finish) in enumerate(zip(begins, finishes, strict=True)):
        first = max(cursor, begin)
        last = max(first, finish)
        bound = min(
            (later for later in begins[number + 1 :] if later > last), default=len(starts_N)
        )
        closing = next((end for end in ends if last <= end < bound), None)
        cursor = last if closing is None else closing + 1
        if closing is not None:
            # Of an empty message only the token that closes it is there.
            first, last = (closing if begin < 0 else first), closing
        bounds.append((first, last, cursor))
    return np.array(bounds, np.int64)


def learnt_tokens(chat: Chat, tokens: ChatTokens, roles: Collection[str]) -> np.ndarray:
    """True for tokens of messages with one of the roles, closing tokens included."""
    learnt_N = np.zeros(len(tokens.ids), bool)
    for number, message in enumerate(chat.messages):
        if number >= chat.first_learnt and message["role"] in roles:
            first, _, behind = tokens.bounds[number]
            learnt_N[first:behind] = True
    return learnt_N


def align_chats(
    student: Sequence[ChatTokens],
    teacher: Sequence[ChatTokens],
    student_tokenizer: ByteTokenizer,
    teacher_tokenizer: ByteTokenizer,
) -> list[np.ndarray]:
    """Chunks `[n, 4]` of each conversation.

    A message is aligned with the same message, what a template writes before it with what the other
    writes there, and the tokens that close a message pair whatever they are called.
    """
    sides = _segments(student), _segments(teacher)
    alignment = align(*sides, student_tokenizer, teacher_tokenizer)
    chunks, segment = [], 0
    for one, other in zip(student, teacher, strict=True):
        starts = _segment_starts(one), _segment_starts(other)
        found = []
        for index in range(len(starts[0]) - 1):
            sizes = [int(side[index + 1] - side[index]) for side in starts]
            shift = np.array([starts[0][index]] * 2 + [starts[1][index]] * 2)
            closes = index % 3 == 2
            own = alignment[segment + index]
            if closes and sizes == [1, 1]:
                own = np.array([[0, 1, 0, 1]])
            found.append(own + shift)
        segment += len(starts[0]) - 1
        chunks.append(np.concatenate(found).astype(np.int32))
    return chunks


def _segment_starts(tokens: ChatTokens) -> np.ndarray:
    """Before each message, the message, its closing token; in the end what is left."""
    return np.concatenate([[0], tokens.bounds.ravel(), [len(tokens.ids)]])


def _segments(chats: Sequence[ChatTokens]) -> Encoded:
    """All segments of all conversations as texts of their own."""
    counts = [len(tokens.ids) for tokens in chats]
    before = np.cumsum(counts) - counts
    starts = [
        _segment_starts(tokens)[:-1] + shift for tokens, shift in zip(chats, before, strict=True)
    ]
    offsets_B = np.concatenate([*starts, [sum(counts)]]).astype(np.int64)
    prefixed = [tokens.prefixed + shift for tokens, shift in zip(chats, before, strict=True)]
    ids_N = np.concatenate([tokens.ids for tokens in chats])
    return Encoded(ids_N, offsets_B, np.concatenate(prefixed).astype(np.int64))
