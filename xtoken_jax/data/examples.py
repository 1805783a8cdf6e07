"""From documents to token ids of the student and of each teacher, with their chunks."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from xtoken_jax.align import align
from xtoken_jax.data.chat import (
    ChatOptions,
    ChatTokens,
    align_chats,
    chat_tokens,
    learnt_tokens,
)
from xtoken_jax.data.cut import cut
from xtoken_jax.data.example import Example, Lengths, TeacherTokens
from xtoken_jax.data.problems import Problem
from xtoken_jax.data.records import Chat, Document
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.text import ByteTokenizer, Encoded


def make_examples(
    documents: Sequence[Document | Chat],
    student: ByteTokenizer,
    teachers: Mapping[str, ByteTokenizer],
    *,
    student_length: int,
    teacher_lengths: Mapping[str, int],
    chat: ChatOptions | None = None,
) -> list[Example]:
    """`try_examples` for documents that must all be good.

    Raises:
        XTokenError: there are no documents, or one cannot be used.
        ValueError: a teacher has no length, or a length no teacher.
    """
    if not documents:
        raise XTokenError("data must hold at least one document, got none")
    lengths = Lengths(student_length, teacher_lengths)
    examples = []
    for made in try_examples(documents, student, teachers, lengths, chat=chat):
        if isinstance(made, Problem):
            raise XTokenError(made.message)
        examples.append(made)
    return examples


def try_examples(
    documents: Sequence[Document | Chat],
    student: ByteTokenizer,
    teachers: Mapping[str, ByteTokenizer],
    lengths: Lengths,
    *,
    chat: ChatOptions | None = None,
) -> list[Example | Problem]:
    """Tokenise and align documents; an example for each, or what is wrong with it.

    A text begins and ends as each side's tokenizer does, a conversation as each side's template
    does. What is too long on some side is cut at a place at which a chunk of every teacher ends,
    so that all sides keep the same text: a text loses its end, what is learnt only in part loses
    its beginning, up to its last learnt part.

    Args:
        documents: Texts and conversations.
        student: The student's tokenizer.
        teachers: Each teacher's tokenizer, by name; none for cross-entropy alone.
        lengths: Most tokens of each side.
        chat: For conversations.

    Raises:
        ValueError: a teacher has no length, or a length no teacher.
        UsageError: there is a conversation, but no `chat`.
    """
    if teachers.keys() != lengths.teachers.keys():
        raise ValueError(
            f"`teacher_lengths` must be of {sorted(teachers)}, got {sorted(lengths.teachers)}"
        )
    made: dict[int, Example | Problem] = {}
    texts = {i: item for i, item in enumerate(documents) if isinstance(item, Document)}
    chats = {i: item for i, item in enumerate(documents) if isinstance(item, Chat)}
    if texts:
        found = text_examples(list(texts.values()), student, teachers)
        made |= dict(zip(texts, found, strict=True))
    if chats:
        if chat is None:
            raise UsageError("data of format messages needs chat templates, got none")
        found = chat_examples(list(chats.values()), student, teachers, chat)
        made |= dict(zip(chats, found, strict=True))
    return [_fitting(made[index], lengths) for index in range(len(documents))]


def _fitting(made: Example | Problem, lengths: Lengths) -> Example | Problem:
    if isinstance(made, Problem):
        return made
    if not made.loss_mask.any():
        return Problem("nothing to learn", f"{made.record}: no token of it is to be learnt")
    fitting = cut(made, lengths)
    if fitting is None:
        what = "what is to be learnt" if not made.loss_mask.all() else "its first chunk"
        return Problem("too long", f"{made.record}: {what} must fit in {lengths}")
    return fitting


def text_examples(
    documents: Sequence[Document], student: ByteTokenizer, teachers: Mapping[str, ByteTokenizer]
) -> list[Example]:
    """Whole texts, not cut."""
    texts = [document.text for document in documents]
    encoded = student.encode(texts, bos=True, eos=True)
    sides: list[dict[str, TeacherTokens]] = [{} for _ in documents]
    for name, teacher in teachers.items():
        teacher_encoded = teacher.encode(texts, bos=True, eos=True)
        alignment = align(encoded, teacher_encoded, student, teacher)
        for index, tokens in enumerate(sides):
            ids = teacher_encoded[index]
            tokens[name] = teacher_tokens(ids, alignment[index], len(encoded[index]), teacher)
    masks = _completion_masks(documents, encoded, student)
    return [
        Example(
            encoded[index],
            masks[index],
            sides[index],
            document.record,
            has_bos=_has_bos(encoded[index], student),
        )
        for index, document in enumerate(documents)
    ]


def _completion_masks(
    documents: Sequence[Document], encoded: Encoded, student: ByteTokenizer
) -> list[np.ndarray]:
    """True for tokens that end behind a document's prompt, and for its eos."""
    masks = [np.ones(len(encoded[index]), bool) for index in range(len(documents))]
    prompted = [index for index, document in enumerate(documents) if document.prompt_length]
    if prompted:
        prompts = [documents[index].text[: documents[index].prompt_length] for index in prompted]
        sizes = _spelled_bytes(student.encode(prompts), student)
        ends_N = student.byte_ends(encoded)
        for index, size in zip(prompted, sizes, strict=True):
            own = slice(*encoded.offsets_B[index : index + 2])
            masks[index] = ends_N[own] > size
    return masks


def _spelled_bytes(encoded: Encoded, tokenizer: ByteTokenizer) -> list[int]:
    """Bytes of each text as its tokens spell it, which a normaliser may have changed."""
    ends_N = tokenizer.byte_ends(encoded)
    owned = zip(encoded.offsets_B[:-1].tolist(), encoded.offsets_B[1:].tolist(), strict=True)
    return [int(ends_N[end - 1]) if start < end else 0 for start, end in owned]


def chat_examples(
    chats: Sequence[Chat],
    student: ByteTokenizer,
    teachers: Mapping[str, ByteTokenizer],
    options: ChatOptions,
) -> list[Example | Problem]:
    """Whole conversations, not cut, and what is wrong with the others."""
    rows: list[list[ChatTokens | Problem]] = []
    for item in chats:
        row = [chat_tokens(item, student, options.student)]
        row += [chat_tokens(item, teachers[name], options.teachers[name]) for name in teachers]
        rows.append(row)
    problems = [next((side for side in row if isinstance(side, Problem)), None) for row in rows]
    good = [index for index, problem in enumerate(problems) if problem is None]
    made: list[Example | Problem | None] = list(problems)
    columns = cast(
        list[list[ChatTokens]], [[rows[i][k] for i in good] for k in range(len(rows[0]))]
    )
    for index, tokens in zip(good, columns[0], strict=True):
        mask = learnt_tokens(chats[index], tokens, options.loss_roles)
        bos = _has_bos(tokens.ids, student)
        made[index] = Example(tokens.ids, mask, {}, chats[index].record, has_bos=bos)
    for name, side in zip(teachers, columns[1:], strict=True):
        chunks = align_chats(columns[0], side, student, teachers[name]) if good else []
        for index, tokens, found in zip(good, side, chunks, strict=True):
            example = cast(Example, made[index])
            size = len(example.student_ids)
            example.teachers[name] = teacher_tokens(tokens.ids, found, size, teachers[name])
    return cast(list[Example | Problem], made)


def teacher_tokens(
    ids: np.ndarray, chunks_N4: np.ndarray, num_student: int, teacher: ByteTokenizer
) -> TeacherTokens:
    """A teacher's side from its chunks."""
    return TeacherTokens(
        ids,
        chunk_of_token(chunks_N4[:, :2], num_student),
        chunk_of_token(chunks_N4[:, 2:], len(ids)),
        has_bos=_has_bos(ids, teacher),
    )


def _has_bos(ids: np.ndarray, tokenizer: ByteTokenizer) -> bool:
    return len(ids) > 0 and int(ids[0]) == tokenizer.bos_id


def chunk_of_token(spans_N2: np.ndarray, num_tokens: int) -> np.ndarray:
    """The chunk of each token of one side, -1 for none, from the spans of the chunks."""
    chunk = np.full(num_tokens, -1, np.int32)
    lengths_N = spans_N2[:, 1] - spans_N2[:, 0]
    starts_N = np.cumsum(lengths_N) - lengths_N
    within_N = np.arange(int(lengths_N.sum())) - np.repeat(starts_N, lengths_N)
    tokens_N = np.repeat(spans_N2[:, 0], lengths_N) + within_N
    chunk[tokens_N] = np.repeat(np.arange(len(spans_N2), dtype=np.int32), lengths_N)
    return chunk
