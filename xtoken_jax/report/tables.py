"""Evaluations, alignments, rows of W and audits, as tables for a terminal."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from xtoken_jax.report.audit_page import LOSS_NAMES, REACHED, counts_of, headline_numbers
from xtoken_jax.report.page import share

_Result = Mapping[str, Any]
_Columns = Mapping[str, Callable[[_Result], str]]


def evaluation_table(results: Mapping[str, _Result]) -> Table:
    """Held-out bits per byte, and the student's change where both times were on as many bytes.

    Right answers and agreement have columns where a model has them.
    """
    columns = evaluation_columns(results.values())
    table = Table("model", title="held-out bits per byte")
    for name in columns:
        table.add_column(name, justify="right")
    source = ""
    for name, *cells in evaluation_rows(results, columns):
        if (own := source_of_row(name)) != source:
            table.add_section()
            source = own
        table.add_row(name, *cells)
    return table


def evaluation_columns(results: Iterable[_Result]) -> _Columns:
    """What cells say of a result, by the titles of their columns; at least bits per byte."""
    results = list(results)
    columns: dict[str, Callable[[_Result], str]] = {
        "all bytes": lambda result: _number(result["all"]),
        "digit bytes": lambda result: _number(result["digits"]),
    }
    if any("exact_match" in result for result in results):
        columns["right answers"] = _right_answers
    teachers = dict.fromkeys(name for result in results for name in result.get("agreement", ()))
    for teacher in teachers:
        columns[f"agrees with {teacher}"] = partial(_agreement, teacher=teacher)
    return columns


def evaluation_rows(results: Mapping[str, _Result], columns: _Columns) -> list[list[str]]:
    """A row for each model, with its name first, and one for the student's change.

    Where held-out texts are of several sources, rows like `student after, gsm_symbolic` follow.
    """
    rows = _rows(results, columns)
    by_source: dict[str, dict[str, _Result]] = {}
    for name, result in results.items():
        for source, part in result.get("sources", {}).items():
            by_source.setdefault(source, {})[name] = part
    for source, parts in by_source.items():
        rows += [[f"{name}, {source}", *cells] for name, *cells in _rows(parts, columns)]
    return rows


def source_of_row(name: str) -> str:
    """The held-out source that a row of `evaluation_rows` is of; '' of all together."""
    return name.partition(", ")[2]


def _rows(results: Mapping[str, _Result], columns: _Columns) -> list[list[str]]:
    rows = [
        [name, *(cell(result) for cell in columns.values())] for name, result in results.items()
    ]
    before, after = results.get("student before"), results.get("student after")
    if before and after and before.get("num_bytes") == after.get("num_bytes"):
        changes = [_change(before[field], after[field]) for field in ("all", "digits")]
        rows.append(["student's change", *changes, *[""] * (len(columns) - 2)])
    return rows


def _right_answers(result: _Result) -> str:
    if "exact_match" not in result:
        return "-"
    num_right = round(result["exact_match"] * result["num_questions"])
    return f"{num_right} of {result['num_questions']}"


def _agreement(result: _Result, *, teacher: str) -> str:
    share = result.get("agreement", {}).get(teacher, {}).get("share")
    return "-" if share is None else f"{share:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _change(before: float | None, after: float | None) -> str:
    return "-" if before is None or after is None else f"{after / before - 1:+.1%}"


def alignment_table(record: dict[str, Any]) -> Table:
    """The chunks of one text, the tokens of both sides beside each other, and the gaps."""
    table = Table("student", "teacher", title=f"chunks (path: {record['path']})")
    sides = record["student"]["pieces"], record["teacher"]["pieces"]
    for a, b, c, d in record["chunks"]:
        table.add_row(*(" ".join(map(repr, pieces)) for pieces in (sides[0][a:b], sides[1][c:d])))
    gaps = [
        " ".join(repr(side[i]) for i in record["gaps"][name])
        for side, name in zip(sides, ("student", "teacher"), strict=True)
    ]
    table.add_section()
    table.add_row(*(f"gaps: {gap or 'none'}" for gap in gaps))
    return table


def projection_table(record: dict[str, Any]) -> Table:
    """What W holds, and a few of its rows."""
    table = Table("what", "value", title=f"W: {record['student']} to {record['teacher']}")
    for name, value in record.items():
        if name == "examples":
            for example in value:
                pairs = zip(example["pieces"], example["weights"], strict=True)
                row = ", ".join(f"{piece!r} {weight:.4f}" for piece, weight in pairs)
                table.add_row(f"row {example['token']!r}", row)
        else:
            table.add_row(name.replace("_", " "), "-" if value is None else str(value))
    return table


def audit_table(record: Mapping[str, Any]) -> Group:
    """An audit: both vocabularies, the categories, lengths in pieces, and the recommendation."""
    loss, reason = record["recommendation"]["loss"], record["recommendation"]["reason"]
    recommendation = Text(f"use {LOSS_NAMES.get(loss, loss)}", style="bold")
    return Group(
        _vocabulary_table(record),
        _category_table(record["categories"]),
        _length_table(record["piece_lengths"]),
        recommendation.append(f": {reason}", style="not bold"),
    )


def _vocabulary_table(record: Mapping[str, Any]) -> Table:
    table = Table("what", title=f"audit: {record['student']} to {record['teacher']}")
    table.add_column("value", justify="right")
    for row in headline_numbers(record).items():
        table.add_row(*row)
    return table


def _category_table(categories: Mapping[str, Mapping[str, Any]]) -> Table:
    """Counts, and below them, where a corpus was given, the category's share of it and parts."""
    table = Table(title="student tokens, and how they reach the teacher")
    table.add_column("category", no_wrap=True)
    for name in ("tokens", *REACHED.values()):
        table.add_column(name, justify="right")
    for name, category in categories.items():
        counts = [category["total"], *counts_of(category).values()]
        table.add_row(name.replace("_", " "), *(f"{count:,}" for count in counts))
        if weighted := category.get("weighted"):
            cells = [share(part, weighted["total"]) for part in counts_of(weighted).values()]
            table.add_row("  in corpus", share(weighted["total"], 1), *cells)
    return table


def _length_table(piece_lengths: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table("pieces", title="pieces of the tokens outside the exact common set")
    for name in piece_lengths:
        table.add_column("valid UTF-8" if name == "utf8" else f"{name} tokens", justify="right")
    for length in next(iter(piece_lengths.values()), ()):
        table.add_row(length, *(f"{counts[length]:,}" for counts in piece_lengths.values()))
    return table
