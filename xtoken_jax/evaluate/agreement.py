"""Top-1 agreement: how often two models with other tokenizers like the same text best."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from xtoken_jax.align import align
from xtoken_jax.evaluate.reading import Reading
from xtoken_jax.text import ByteTokenizer, Role


@dataclass(frozen=True)
class Agreement:
    """Share of the chunks of one token on each side where both models guess the same.

    None where there is no such chunk.
    """

    share: float | None
    num_chunks: int

    @classmethod
    def total(cls, parts: Sequence["Agreement"]) -> "Agreement":
        """Of all chunks of several readings."""
        num_chunks = sum(part.num_chunks for part in parts)
        same = sum((part.share or 0.0) * part.num_chunks for part in parts)
        return cls(same / num_chunks if num_chunks else None, num_chunks)

    def to_dict(self) -> dict[str, float | int | None]:
        """As plain values, for JSON."""
        return asdict(self)


def top1_agreement(student: Reading, teacher: Reading) -> Agreement:
    """How often both guess the same in the place of a text that is one token on each side.

    Guesses are the same if they have the same bytes; control tokens, if they share a purpose.

    Raises:
        ValueError: the two have read different numbers of texts.
    """
    chunks = align(student.encoded, teacher.encoded, student.tokenizer, teacher.tokenizer)
    same = []
    for index in range(len(student.encoded)):
        a_N, b_N, c_N, d_N = chunks[index].T
        is_single_N = (b_N - a_N == 1) & (d_N - c_N == 1)
        guesses = (
            student.guesses_N[student.encoded.offsets_B[index] + a_N[is_single_N]],
            teacher.guesses_N[teacher.encoded.offsets_B[index] + c_N[is_single_N]],
        )
        for s, t in zip(*guesses, strict=True):
            same.append(_is_same(student.tokenizer, s, teacher.tokenizer, t))
    return Agreement(float(np.mean(same)) if same else None, len(same))


def _is_same(student: ByteTokenizer, s: int, teacher: ByteTokenizer, t: int) -> bool:
    if spelled := student.token_bytes[s]:
        return spelled == teacher.token_bytes[t]
    none = Role.NONE
    return bool(student.roles.get(int(s), none) & teacher.roles.get(int(t), none))
