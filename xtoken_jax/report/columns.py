"""Where tokens stand in the text: the columns of the alignment page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

# How far to look for the text again after tokens that do not spell it (another normaliser, a
# dropped character), and how many bytes must agree there.
_MAX_SKIPPED_BYTES = 256
_MAX_SKIPPED_TOKENS = 32
_MIN_AGREEING_BYTES = 4

_Span = tuple[int, int]


@dataclass(frozen=True)
class Column:
    """Tokens of both sides over one stretch of the text.

    Attributes:
        kind: A chunk, a gap, or text that no token spells.
        student: First student token and one past the last.
        teacher: Likewise.
        text: The characters that begin in it.
        goes_on: There are none, but its tokens spell more of a character that began before.
    """

    kind: Literal["chunk", "gap", "untokenised"]
    student: _Span
    teacher: _Span
    text: str
    goes_on: bool = False


def columns(record: dict[str, Any], text: str) -> list[Column]:
    """The columns of one text, in order; every token, and every character, is in exactly one.

    Gaps are cut where both sides reach the same place of the text.

    Args:
        record: `chunks`, and for `student` and `teacher` the `bytes` of each token in hexadecimal.
        text: What was aligned.
    """
    content = text.encode("utf-8", "surrogatepass")
    student, teacher = (
        locate(content, [bytes.fromhex(token) for token in record[side]["bytes"]])
        for side in ("student", "teacher")
    )
    walk = _Walk(content)
    a_next = c_next = 0
    end = [len(student), len(student), len(teacher), len(teacher)]
    for a, b, c, d in [*record["chunks"], end]:
        limit = student[a][0] if a < len(student) else len(content)
        for own, other in _gap_groups(student, teacher, (a_next, a), (c_next, c)):
            spans = student[slice(*own)] + teacher[slice(*other)]
            walk.add("gap", own, other, [(x, min(y, limit)) for x, y in spans])
        if a < b:
            walk.add("chunk", (a, b), (c, d), student[a:b])
        a_next, c_next = b, d
    walk.skip_to(len(content))
    return walk.columns


class _Walk:
    """Cuts the text into columns from left to right."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.columns: list[Column] = []
        self._at = 0  # in bytes
        self._tokens = (0, 0)

    def add(
        self, kind: Literal["chunk", "gap"], student: _Span, teacher: _Span, spans: list[_Span]
    ) -> None:
        self.skip_to(min(start for start, _ in spans))
        text = self._take(max(end for _, end in spans))
        goes_on = not text and any(start < end for start, end in spans)
        self.columns.append(Column(kind, student, teacher, text, goes_on))
        self._tokens = (student[1], teacher[1])

    def skip_to(self, position: int) -> None:
        """Make a column of the text up to a place, if there is any."""
        if text := self._take(position):
            student, teacher = ((index, index) for index in self._tokens)
            self.columns.append(Column("untokenised", student, teacher, text))

    def _take(self, end: int) -> str:
        # A character belongs to where it begins.
        while end < len(self.content) and self.content[end] & 0xC0 == 0x80:
            end += 1
        taken = self.content[self._at : end]
        self._at = max(self._at, end)
        return taken.decode("utf-8", "surrogatepass")


def locate(content: bytes, tokens: list[bytes]) -> list[_Span]:
    """The bytes of the text that each token stands for; those without bytes stand between.

    Tokens that do not spell the text, up to where it agrees again, share what lies there.
    """
    spans: list[_Span] = []
    at = 0
    while len(spans) < len(tokens):
        token = tokens[len(spans)]
        if at == 0 and token.startswith(b" ") and not content.startswith(token):
            token = token[1:]  # the space that SentencePiece puts before a text
        if content.startswith(token, at):
            spans.append((at, at + len(token)))
            at += len(token)
        else:
            count, found = _next_agreement(content, at, tokens, len(spans))
            spans += [(at, found)] * count
            at = found
    return spans


def _next_agreement(content: bytes, at: int, tokens: list[bytes], index: int) -> _Span:
    """How many tokens to leave out, and where the text agrees with those that follow."""
    best = (1, at)
    lowest_cost = _MAX_SKIPPED_BYTES
    skipped = 0
    for count, token in enumerate([*tokens[index : index + _MAX_SKIPPED_TOKENS], b""]):
        needle = _joined(tokens, index + count)
        found = content.find(needle, at, at + _MAX_SKIPPED_BYTES) if needle else len(content)
        if found >= 0 and skipped + found - at < lowest_cost:
            lowest_cost = skipped + found - at
            best = (count, found)
        skipped += len(token)
    return best


def _joined(tokens: list[bytes], index: int) -> bytes:
    needle = b""
    while index < len(tokens) and len(needle) < _MIN_AGREEING_BYTES:
        needle += tokens[index]
        index += 1
    return needle


def _gap_groups(
    student: list[_Span], teacher: list[_Span], own: _Span, other: _Span
) -> Iterator[tuple[_Span, _Span]]:
    """Cut the gaps between two chunks where both sides reach the same place of the text."""
    (i, i_end), (j, j_end) = own, other
    while i < i_end or j < j_end:
        first = i, j
        takes_student = j == j_end or (i < i_end and student[i] <= teacher[j])
        reach = student[i][1] if takes_student else teacher[j][1]
        i, j = i + takes_student, j + (not takes_student)
        while True:  # whatever begins before the group's end belongs to it
            if i < i_end and student[i][0] < reach:
                reach = max(reach, student[i][1])
                i += 1
            elif j < j_end and teacher[j][0] < reach:
                reach = max(reach, teacher[j][1])
                j += 1
            else:
                break
        yield (first[0], i), (first[1], j)
