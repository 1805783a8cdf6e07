"""Evaluations, alignments and rows of W, as tables for a terminal."""

from typing import Any

from rich.table import Table


def evaluation_table(results: dict[str, dict[str, float | None]]) -> Table:
    """Held-out bits per byte, and the student's change where both times were on as many bytes."""
    table = Table(title="held-out bits per byte")
    table.add_column("model")
    for name in ("all bytes", "digit bytes"):
        table.add_column(name, justify="right")
    for name, result in results.items():
        table.add_row(name, *(_number(result[field]) for field in ("all", "digits")))
    before, after = results.get("student before"), results.get("student after")
    if before and after and before.get("num_bytes") == after.get("num_bytes"):
        changes = [_change(before[field], after[field]) for field in ("all", "digits")]
        table.add_row("student's change", *changes)
    return table


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
