"""Records of alignments and audits, for tests of tables and pages."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

AUDIT = {
    "student": "asset:llama3",
    "teacher": "asset:smollm2-135m",
    "overlap": {"bytes": 0.79976, "strings": 0.8012},
    "common_share": 0.3065,
    "categories": {
        "3-digit numerals": {
            "total": 1000,
            "exact": 0,
            "hybrid": 20,
            "projected": 970,
            # In floating point, 0.07 - (0.01 + 0.06) is above 0.
            "weighted": {"total": 0.07, "exact": 0.0, "hybrid": 0.01, "projected": 0.06},
        },
        "ASCII letters": {"total": 84000, "exact": 84000, "hybrid": 0, "projected": 0},
        "4+-digit numerals": {"total": 0, "exact": 0, "hybrid": 0, "projected": 0},
    },
    "piece_lengths": {
        "all": {"2": 50123, "3": 25012, "4": 9012, "5+": 4800},
        "utf8": {"2": 49223, "3": 24900, "4": 9000, "5+": 4700},
    },
    "unreachable_teacher_tokens": 8734,
    "empty_rows": 272,
    "recommendation": {
        "loss": "p_kl",
        "reason": "The exact common set holds only 0 of 1000 <i>[b] numerals.",
    },
}


def side(tokens: Sequence[bytes], names: Sequence[str] = ()) -> dict[str, Any]:
    """One side of a record; a token without bytes is a control token."""
    pieces = [token.decode(errors="backslashreplace") or "<|control|>" for token in tokens]
    return {
        "ids": list(range(100, 100 + len(tokens))),
        "pieces": list(names) or pieces,
        "bytes": [token.hex() for token in tokens],
    }


def alignment(
    student: Sequence[bytes], teacher: Sequence[bytes], chunks: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """A record with these chunks; all other tokens are gaps."""
    paired = [
        {index for chunk in chunks for index in range(*chunk[first : first + 2])}
        for first in (0, 2)
    ]
    return {
        "student": side(student),
        "teacher": side(teacher),
        "chunks": [list(chunk) for chunk in chunks],
        "gaps": {
            "student": [index for index in range(len(student)) if index not in paired[0]],
            "teacher": [index for index in range(len(teacher)) if index not in paired[1]],
        },
        "path": "bytes",
    }


def finest(student: Sequence[bytes], teacher: Sequence[bytes]) -> dict[str, Any]:
    """The record of two tokenisations of the same bytes, without control tokens."""
    # From where a token ends to how many there are by then, 0 included.
    counts = [
        {end: count for count, end in enumerate(accumulate(map(len, tokens), initial=0))}
        for tokens in (student, teacher)
    ]
    cuts = sorted(counts[0].keys() & counts[1].keys())
    chunks = [(counts[0][x], counts[0][y], counts[1][x], counts[1][y]) for x, y in pairwise(cuts)]
    return alignment(student, teacher, chunks)
