"""How W is built."""

from dataclasses import dataclass
from typing import Literal, get_args

LongPieces = Literal["truncate", "drop"]
Canonicalization = Literal["exact", "paper"]


@dataclass(frozen=True)
class BuildOptions:
    """The keywords of `build_projection`, which says what they mean.

    Raises:
        ValueError: one is out of range.
    """

    beta: float = 0.9
    gamma: float = 0.1
    max_pieces: int = 4
    long_pieces: LongPieces = "truncate"
    canonicalization: Canonicalization = "exact"
    reverse: bool = False
    special_similarity: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"`beta` must be positive, got {self.beta}")
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"`gamma` must be in [0, 1], got {self.gamma}")
        if self.max_pieces < 1:
            raise ValueError(f"`max_pieces` must be at least 1, got {self.max_pieces}")
        check_choice("long_pieces", self.long_pieces, LongPieces)
        check_choice("canonicalization", self.canonicalization, Canonicalization)


def check_choice(name: str, value: str, choices: object) -> None:
    """Refuse a value that a `Literal` does not list."""
    if value not in get_args(choices):
        raise ValueError(f"`{name}` must be one of {get_args(choices)}, got {value}")
