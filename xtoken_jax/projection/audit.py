"""What a pair of tokenizers has in common, and which loss suits it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xtoken_jax.projection.categories import CATEGORIES, NOT_UTF8, NUM_ORDINARY, categories_of
from xtoken_jax.projection.matrix import Projection
from xtoken_jax.projection.partition import hybrid_pairs
from xtoken_jax.projection.retokenise import Pieces, retokenise
from xtoken_jax.text import ByteTokenizer

DEFAULT_CRITICAL = ("2-digit numerals", "3-digit numerals")
_REACHES = (
    "exact",
    "hybrid",
    "projected",
)  # how a token reaches the teacher; else its row is empty
_EMPTY = len(_REACHES)


def audit(
    student: ByteTokenizer,
    teacher: ByteTokenizer,
    projection: Projection,
    *,
    threshold: float = 0.6,
    counts_V: np.ndarray | None = None,
    critical: Sequence[str] = DEFAULT_CRITICAL,
) -> dict[str, Any]:
    """Coverage of the student's vocabulary, by kind of token, as JSON-compatible values.

    Args:
        student: Of the rows.
        teacher: Of the columns.
        projection: W of the two.
        threshold: Smallest weight with which H-KL takes a pair from W.
        counts_V: How often each student token occurs in a corpus.
        critical: Categories that must not fall out of the exact common set: where fewer than half
            of the student's tokens of one are in it, P-KL is recommended.

    Returns:
        `overlap`, `common_share`: fractions, control tokens left out. `categories`: for each the
        `total` of tokens, and how many are in GOLD's common set (`exact`), only in H-KL's
        (`hybrid`), or in neither but with a row in W (`projected`); the rest have empty rows.
        With `counts_V` also `weighted`: the same four as fractions of the corpus.
        `piece_lengths`: number of teacher tokens that spell a token without exact counterpart, of
        all and of those that are UTF-8. `recommendation`: `p_kl` or `h_kl`, and why.

    Raises:
        ValueError: the projection is not of these tokenizers or does not say which rows are
            exact; `counts_V` is no count of each token; an option is out of range.
    """
    _check(student, teacher, projection, counts_V, critical)
    categories_V = categories_of(student)
    reaches_V = _reaches(projection, threshold)
    table_CR = _table(categories_V, reaches_V)
    categories = _named(table_CR)
    if counts_V is not None:
        for name, counts in _named(_table(categories_V, reaches_V, counts_V)).items():
            shares = {key: count / float(counts_V.sum()) for key, count in counts.items()}
            categories[name]["weighted"] = shares
    pieces = retokenise(
        student, teacher, canonicalization=projection.options.get("canonicalization", "exact")
    )
    ordinary_CR = table_CR[:NUM_ORDINARY]
    return {
        "student": student.name,
        "teacher": teacher.name,
        "overlap": _overlap(student, teacher),
        "common_share": float(ordinary_CR[:, 0].sum() / max(1, ordinary_CR.sum())),
        "categories": categories,
        "piece_lengths": _piece_lengths(pieces, categories_V),
        "unreachable_teacher_tokens": int((~projection.reachable_U).sum()),
        "empty_rows": len(projection.empty_rows),
        "recommendation": _recommendation(categories, critical),
    }


def _check(
    student: ByteTokenizer,
    teacher: ByteTokenizer,
    projection: Projection,
    counts_V: np.ndarray | None,
    critical: Sequence[str],
) -> None:
    for side, tokenizer in (("student", student), ("teacher", teacher)):
        if getattr(projection, f"{side}_fingerprint") != tokenizer.fingerprint:
            raise ValueError(f"`projection` must be of the {side} {tokenizer.name}, got another's")
    for name in critical:
        if name not in CATEGORIES:
            raise ValueError(f"`critical` must be among {', '.join(CATEGORIES)}, got {name}")
    if counts_V is None:
        return
    if counts_V.shape != (student.num_tokens,):
        raise ValueError(
            f"`counts_V` must have shape ({student.num_tokens},), got {counts_V.shape}"
        )
    if counts_V.min() < 0 or counts_V.sum() <= 0:
        raise ValueError("`counts_V` must be counts, at least one positive and none negative")


def _reaches(projection: Projection, threshold: float) -> np.ndarray:
    """Index in `_REACHES` of how each row reaches the teacher, or `_EMPTY`."""
    common = hybrid_pairs(projection, threshold=threshold)
    reaches_V = np.full(projection.num_student_tokens, _REACHES.index("projected"))
    reaches_V[projection.empty_rows] = _EMPTY
    reaches_V[common.student_ids_N] = np.where(common.is_exact_N, 0, 1)
    return reaches_V


def _table(
    categories_V: np.ndarray, reaches_V: np.ndarray, weights_V: np.ndarray | None = None
) -> np.ndarray:
    """Tokens, or their weights, by category and by how they reach the teacher."""
    width = _EMPTY + 1
    is_token_V = categories_V >= 0
    cells_N = (categories_V * width + reaches_V)[is_token_V]
    weights_N = None if weights_V is None else weights_V[is_token_V]
    return np.bincount(cells_N, weights_N, len(CATEGORIES) * width).reshape(-1, width)


def _named(table_CR: np.ndarray) -> dict[str, dict[str, Any]]:
    return {
        name: {"total": row.sum().item(), **dict(zip(_REACHES, row.tolist(), strict=False))}
        for name, row in zip(CATEGORIES, table_CR, strict=True)
    }


def _overlap(student: ByteTokenizer, teacher: ByteTokenizer) -> dict[str, float]:
    """Common elements over those of the smaller vocabulary, as bytes and as decoded strings."""
    bytes_of = [set(side.id_of_bytes) for side in (student, teacher)]
    strings_of = [{content.decode(errors="replace") for content in side} for side in bytes_of]
    return {"bytes": _shared(*bytes_of), "strings": _shared(*strings_of)}


def _shared(student: set[Any], teacher: set[Any]) -> float:
    return len(student & teacher) / max(1, min(len(student), len(teacher)))


def _piece_lengths(pieces: Pieces, categories_V: np.ndarray) -> dict[str, dict[str, int]]:
    is_split_V = ~pieces.exact_V & (categories_V >= 0) & (categories_V < NUM_ORDINARY)
    is_utf8_V = categories_V != CATEGORIES.index(NOT_UTF8)
    return {
        "all": _histogram(pieces.lengths_V[is_split_V]),
        "utf8": _histogram(pieces.lengths_V[is_split_V & is_utf8_V]),
    }


def _histogram(lengths_N: np.ndarray) -> dict[str, int]:
    counts = np.bincount(np.minimum(lengths_N, 5), minlength=6).tolist()
    return dict(zip(("2", "3", "4", "5+"), counts[2:], strict=True))


def _recommendation(
    categories: dict[str, dict[str, Any]], critical: Sequence[str]
) -> dict[str, str]:
    present = [name for name in critical if categories[name]["total"]]
    lost = [name for name in present if 2 * categories[name]["exact"] < categories[name]["total"]]
    if not present:
        names = " and ".join(critical) or "critical categories"
        return {"loss": "h_kl", "reason": f"The student has no {names} that H-KL could lose."}
    told = " and ".join(
        f"{categories[name]['exact']} of {categories[name]['total']} {name}"
        for name in lost or present
    )
    return {
        "loss": "p_kl" if lost else "h_kl",
        "reason": f"The exact common set holds {'only ' if lost else ''}{told}.",
    }
