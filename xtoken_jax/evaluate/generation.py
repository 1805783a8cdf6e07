"""What a model writes after a prompt, as text."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xtoken_jax.evaluate.rows import check_vocabulary, started_rows
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.generate import GREEDY, Sampling, generate
from xtoken_jax.processes import gathered
from xtoken_jax.text import ByteTokenizer, Role

_ENDS = Role.EOS | Role.TURN_END | Role.MESSAGE_END
_SHORTEST_ROW = 32  # tokens; rows are this long, or twice, or four times, for few programs


def generate_texts(
    model: Decoder, tokenizer: ByteTokenizer, prompts: Sequence[str], **options: Any
) -> list[str]:
    """The text that goes on from each prompt.

    Args:
        model: Has at least as many rows as the tokenizer has tokens.
        tokenizer: The model's.
        prompts: Ordinary text; each follows the tokenizer's bos, or its eos where it has no bos.
        options: See `generate_from`.

    Raises:
        XTokenError: see `started_rows`.
        ValueError: see `models.generate.generate`.
    """
    rows = started_rows(tokenizer.encode(prompts), model, tokenizer)
    return generate_from(model, tokenizer, rows, **options)


def generate_from(
    model: Decoder,
    tokenizer: ByteTokenizer,
    rows: Sequence[np.ndarray],
    *,
    max_new_tokens: int = 256,
    batch_size: int = 8,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    stop: str | None = None,
) -> list[str]:
    """The text that goes on from each row of tokens, up to a token that ends a text or a turn.

    Args:
        model: Has at least as many rows as the tokenizer has tokens.
        tokenizer: The model's.
        rows: Ids of prompts, such as `ChatTemplate.opened` encoded.
        max_new_tokens: At most so many are made for a row.
        batch_size: Rows at a time.
        sampling: How a token is drawn.
        seed: Of the draws; with it a row's place among the rows decides them.
        stop: A text ends before these characters.

    Returns:
        Without the prompt. Bytes that are not UTF-8 become U+FFFD.

    Raises:
        XTokenError: the tokenizer has more tokens than the model has rows.
        ValueError: see `models.generate.generate`.
    """
    check_vocabulary(model, tokenizer)
    seeds_N = np.random.default_rng(seed).integers(2**31, size=len(rows), dtype=np.int32)
    stop_ids = _stop_ids(model, tokenizer, stop)
    texts = [""] * len(rows)
    for numbers in _batches(rows, batch_size):
        ids_BP, lengths_B = _left_padded([rows[i] for i in numbers], batch_size)
        ids_BN = generate(
            model,
            ids_BP,
            lengths_B,
            max_new_tokens=max_new_tokens,
            num_tokens=tokenizer.num_tokens,
            stop_ids=stop_ids,
            sampling=sampling,
            seeds_B=np.resize(seeds_N[numbers], batch_size),
        )
        for number, ids_N in zip(numbers, gathered(ids_BN)[: len(numbers)], strict=True):
            text = tokenizer.bytes_of(ids_N[ids_N >= 0]).decode(errors="replace")
            texts[number] = text if stop is None else text.partition(stop)[0]
    return texts


def _stop_ids(model: Decoder, tokenizer: ByteTokenizer, stop: str | None) -> list[int]:
    """Tokens after which nothing of a text comes; not all spellings of `stop` are among them."""
    ids = {id for id, role in tokenizer.roles.items() if role & _ENDS}
    declared = model.architecture.eos_token_id
    ids |= set(declared if isinstance(declared, tuple) else [declared])
    ids.add(tokenizer.eos_id)
    if stop is not None:
        spelled = enumerate(tokenizer.token_bytes)
        ids |= {id for id, content in spelled if stop.encode() in content}
    return sorted(id for id in ids if id is not None)


def _batches(rows: Sequence[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    """Numbers of rows, those of like length together."""
    order_N = np.argsort([len(row) for row in rows], kind="stable")
    for first in range(0, len(rows), batch_size):
        yield order_N[first : first + batch_size]


def _left_padded(rows: Sequence[np.ndarray], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that end together, empty ones after them; and how long each is."""
    lengths_B = np.zeros(batch_size, np.int32)
    lengths_B[: len(rows)] = [len(row) for row in rows]
    width = _SHORTEST_ROW
    while width < lengths_B.max():
        width *= 2
    ids_BP = np.zeros((batch_size, width), np.int32)
    for ids_P, row in zip(ids_BP, rows, strict=False):
        ids_P[width - len(row) :] = row
    return ids_BP, lengths_B
