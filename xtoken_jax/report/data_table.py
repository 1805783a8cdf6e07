"""What a config trains on, for a terminal: its documents, and the numbers of each source."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from xtoken_jax.report.page import share, visible

_BETWEEN_CHUNKS, _IN_A_CHUNK = "│", "╎"


def data_summary(summary: Mapping[str, Any]) -> Table:
    """The numbers of each source, and of all."""
    heading, *rows = summary_cells(summary)
    table = Table(heading[0], title="data")
    for name in heading[1:]:
        table.add_column(Text(name), justify="right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def summary_cells(summary: Mapping[str, Any]) -> list[list[str]]:
    """Names and numbers, a column for each source and, where there are several, one for all.

    Args:
        summary: `lengths` of rows; `sources`, each with its `source` in words, `counts` and
            `shares` as `RowCounts` gives them; and `total`, likewise.
    """
    sources = [*summary["sources"]]
    if len(sources) > 1:
        sources.append({**summary["total"], "source": "all"})
    columns = [_numbers(source, summary["lengths"]) for source in sources]
    heading = ["", *(visible(source["source"], space=" ") for source in sources)]
    return [heading, *([name, *(column[name] for column in columns)] for name in columns[0])]


def _numbers(source: Mapping[str, Any], lengths: Mapping[str, Any]) -> dict[str, str]:
    counts, shares = source["counts"], source["shares"]
    documents = counts["documents"]
    numbers = {
        "documents": f"{documents:,}",
        "of which cut": f"{counts['cut']:,}",
        "rows": f"{counts['rows']:,}",
        "student tokens": f"{counts['tokens']:,}",
        f"places filled, of {lengths['student']:,} a row": f"{shares['utilisation']:.1%}",
        "tokens a document, mean": _mean(counts["tokens"], documents),
        "tokens a document, longest": f"{counts['longest']:,}",
        "half, nine tenths of documents up to": _quantiles(counts["by_length"]),
        "learnt by cross-entropy": share(counts["learnt"], counts["tokens"]),
    }
    for name, teacher in counts["teachers"].items():
        numbers |= {
            f"{name} tokens": f"{teacher['tokens']:,}",
            f"{name} places filled, of {lengths['teachers'][name]:,} a row": (
                f"{shares['teachers'][name]['utilisation']:.1%}"
            ),
            f"{name} tokens a document, mean": _mean(teacher["tokens"], documents),
            f"{name} tokens a document, longest": f"{teacher['longest']:,}",
            f"student tokens scored against {name}": share(teacher["scored"], counts["tokens"]),
            f"student tokens in no chunk of {name}": share(
                teacher["student_gaps"], counts["tokens"]
            ),
            f"{name} tokens in no chunk": share(teacher["gaps"], teacher["tokens"]),
        }
    return numbers


def _mean(tokens: int, documents: int) -> str:
    return f"{tokens / documents:,.1f}" if documents else "-"


def _quantiles(by_length: Sequence[int]) -> str:
    """Powers of two of tokens that half and nine tenths of the documents do not exceed."""
    reached, bounds = 0, []
    for exponent, number in enumerate(by_length):
        reached += number
        while len(bounds) < 2 and reached >= (0.5, 0.9)[len(bounds)] * sum(by_length):
            bounds.append(f"{2**exponent:,}")
    return ", ".join(bounds) or "-"


def document_tables(document: Mapping[str, Any]) -> Iterator[Table]:
    """A table for each teacher, or one for the student alone.

    A row is a run of neighbouring chunks that are alike: `scored` ones count in the distillation,
    the tokens of all others are only `read`; `gap` tokens are in no chunk. `learnt` says of the
    latter two that cross-entropy counts some of their student tokens.
    """
    student = document["student"]
    place = f"batch {document['batch']}, row {document['row']}: {document['record']}"
    for name, teacher in document["teachers"].items():
        table = _table(place, name)
        for kind, (own, other) in _runs(_stretches(student, teacher)):
            table.add_row(kind, Text(_spelled(student, own)), Text(_spelled(teacher, other)))
        yield table
    if not document["teachers"]:
        table = _table(place)
        singles = enumerate(student["learnt"])
        stretches = [_Stretch(_read(learnt), (i, i + 1), (0, 0)) for i, learnt in singles]
        for kind, (own, _) in _runs(stretches):
            table.add_row(kind, Text(_spelled(student, own)))
        yield table


def _table(place: str, *names: str) -> Table:
    table = Table(title=Text(visible(place, space=" ")), title_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("student", *names):
        table.add_column(Text(name), ratio=1, overflow="fold")
    return table


_Span = tuple[int, int]


class _Stretch(NamedTuple):
    """A chunk, or tokens between two chunks."""

    kind: str
    student: _Span
    teacher: _Span


def _stretches(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Iterator[_Stretch]:
    """The whole of both sides, in order."""
    learnt = student["learnt"]
    b_before = d_before = 0
    end = len(student["ids"]), len(teacher["ids"])
    chunks = [*teacher["chunks"], [end[0], end[0], end[1], end[1]]]
    for (a, b, c, d), is_scored in zip(chunks, [*teacher["scored"], False], strict=True):
        if b_before < a or d_before < c:
            kind = "gap, learnt" if any(learnt[b_before:a]) else "gap"
            yield _Stretch(kind, (b_before, a), (d_before, c))
        if a < b:
            kind = "scored" if is_scored else _read(any(learnt[a:b]))
            yield _Stretch(kind, (a, b), (c, d))
        b_before, d_before = b, d


def _read(is_learnt: bool) -> str:
    return "read, learnt" if is_learnt else "read"


_Run = tuple[str, tuple[list[_Span], list[_Span]]]


def _runs(stretches: Iterator[_Stretch] | Sequence[_Stretch]) -> Iterator[_Run]:
    """Neighbours of one kind, and the spans of their tokens on both sides."""
    for kind, group in groupby(stretches, key=lambda stretch: stretch.kind):
        members = list(group)
        yield kind, ([each.student for each in members], [each.teacher for each in members])


def _spelled(side: Mapping[str, Any], spans: Sequence[_Span]) -> str:
    """Chunks and their tokens, with bars between them."""
    chunks = (_IN_A_CHUNK.join(map(visible, side["pieces"][a:b])) for a, b in spans)
    return _BETWEEN_CHUNKS.join(chunks)
