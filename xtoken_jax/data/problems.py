"""What can be wrong with a record, and what becomes of it: an error, or a count."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from xtoken_jax.errors import XTokenError

Kind = Literal[
    "not UTF-8",
    "not JSON",
    "damaged file",
    "missing field",
    "wrong type",
    "empty",
    "unknown role",
    "template failed",
    "control token in a message",
    "nothing to learn",
    "too long",
]
OnError = Literal["error", "skip"]

# Below this many records a share says little: three bad lines of ten may be the first three.
_FEW = 1000

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """A record that cannot be used.

    Attributes:
        kind: One of a few, to count by.
        message: What is wrong, with file and record number.
    """

    kind: Kind
    message: str


class Tally:
    """Raises for the first bad record, or counts all of them and stops when they are too many.

    Attributes:
        num_good: Records let through so far.
        dropped: Bad records by kind.
        examples: The first message of each kind.
    """

    def __init__(self, *, on_error: OnError = "error", max_error_share: float = 0.01) -> None:
        self.num_good = 0
        self.dropped: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self._on_error = on_error
        self._max_error_share = max_error_share

    def good(self, items: Iterable[T | Problem]) -> Iterator[T]:
        """The items that are no problems; those are dealt with.

        Raises:
            XTokenError: there is a problem and `on_error` is `error`, or too many.
        """
        for item in items:
            if isinstance(item, Problem):
                self.add(item)
            else:
                self.num_good += 1
                yield item

    def add(self, problem: Problem, *, passed_before: bool = False, count: int = 1) -> None:
        """Deal with a bad record.

        Args:
            problem: What is wrong with it.
            passed_before: It was counted as good by an earlier step.
            count: So many records with the same kind of problem, of which this is the first.

        Raises:
            XTokenError: `on_error` is `error`, or the share of bad records is too large.
        """
        if self._on_error == "error":
            raise XTokenError(problem.message)
        if passed_before:
            self.num_good -= count
        self.dropped[problem.kind] += count
        self.examples.setdefault(problem.kind, problem.message)
        if self.dropped.total() + self.num_good >= _FEW:
            self.check()

    def recall(self, dropped: Mapping[str, int], examples: Mapping[str, str]) -> None:
        """Count what was left out when the data was prepared, and has been judged there."""
        self.dropped.update(dropped)
        self.examples.update(examples)

    def check(self) -> None:
        """The share of bad records so far must not be too large.

        Raises:
            XTokenError: it is.
        """
        total = self.dropped.total() + self.num_good
        if self.dropped.total() > self._max_error_share * total:
            raise XTokenError(
                f"`data.max_error_share` must not be exceeded, but {self.dropped.total()} of "
                f"{total} records were bad (more than {self._max_error_share:.2%}): {self}"
            )

    def __str__(self) -> str:
        return "; ".join(
            f"{count} {kind}, the first: {self.examples[kind]}"
            for kind, count in self.dropped.most_common()
        )
