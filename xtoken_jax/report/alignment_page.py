"""The page of one alignment: the text once, the student's tokens above it, the teacher's below."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from xtoken_jax.report.columns import Column, columns
from xtoken_jax.report.page import (
    begins_with_mark,
    data_block,
    facts,
    page,
    text_html,
    token_html,
    visible,
)

# In a long page a browser lays out lists only as they come near the screen; so no list is long.
_MAX_COLUMNS_PER_LINE = 200
_LONG_PAGE = 2000

EXAMPLES = (
    ("same", "", "one student token and one teacher token spell the same bytes"),
    ("many", "1:3", "a chunk of several tokens, student to teacher"),
    ("gap", "gap", "tokens without a counterpart on the other side"),
    ("bare", "no token", "text that neither side spells"),
)


def alignment_page(record: dict[str, Any], text: str, *, title: str) -> str:
    """A self-contained HTML page: chunks as columns over the text, details of each on demand.

    Args:
        record: Of `alignment_record`, with two more lists for each side: `bytes`, each token's own
            bytes in hexadecimal; and, for the student, `projection` if W is known: its row for each
            token as `[piece, weight]` pairs.
        text: What was aligned.
        title: Plain text.
    """
    found = columns(record, text)
    length = "long" if len(found) > _LONG_PAGE else "short"
    body = f"""{facts(_counts(record))}
{legend(EXAMPLES)}
<p id="hint" hidden>Hover over, tap or focus a chunk for ids, bytes and rows of W; \
the arrow keys move from chunk to chunk.</p>
<div id="flow" class="{length}">
{flow(found, record)}
</div>
<aside id="tip" role="tooltip" hidden></aside>
{data_block("tokens", [details(record["student"]), details(record["teacher"])])}"""
    return page(title, body, styles=["alignment.css"], script="alignment.js")


def _counts(record: dict[str, Any]) -> dict[str, str]:
    num_single = sum(b - a == d - c == 1 for a, b, c, d in record["chunks"])
    num_chunks = len(record["chunks"])
    numbers = {
        "student tokens": len(record["student"]["ids"]),
        "teacher tokens": len(record["teacher"]["ids"]),
        "chunks": num_chunks,
        "1 to 1": num_single,
        "n to m": num_chunks - num_single,
        "student gaps": len(record["gaps"]["student"]),
        "teacher gaps": len(record["gaps"]["teacher"]),
    }
    return {name: f"{number:,}" for name, number in numbers.items()} | {"path": record["path"]}


def legend(examples: Iterable[tuple[str, str, str]]) -> str:
    """What columns look like: class, label, and meaning of each."""
    rows = "<p><bdi>student</bdi></p><p>text</p><p><bdi>teacher</bdi></p>"
    items = (
        f'<dt class="column {name}">{_label(label)}{rows}</dt><dd>{meaning}</dd>'
        for name, label, meaning in examples
    )
    return f'<dl class="legend">{"".join(f"<div>{item}</div>" for item in items)}</dl>'


def flow(
    all_columns: list[Column], record: dict[str, Any], *, before: tuple[int, int] = (0, 0)
) -> str:
    """The columns as lists.

    Args:
        all_columns: Of one text.
        record: As for `alignment_page`. Where the student has a list `learnt`, its tokens are
            marked by it; where the record has a list `scored`, its chunks are.
        before: Tokens of each side that the page's data has before this text's.
    """
    student, teacher = (
        [token_html(piece) for piece in record[side]["pieces"]] for side in ("student", "teacher")
    )
    for index, is_learnt in enumerate(record["student"].get("learnt", ())):
        if is_learnt:
            student[index] = student[index].replace("<bdi>", '<bdi class="learnt">', 1)
    scored = record.get("scored", [True] * len(record["chunks"]))
    unscored = {a for (a, *_), counts in zip(record["chunks"], scored, strict=True) if not counts}
    return "\n".join(
        # Where its tokens begin in the lists of the script's data.
        f'<ol data-student="{before[0] + line[0].student[0]}" '
        f'data-teacher="{before[1] + line[0].teacher[0]}">'
        f"{''.join(_item(column, student, teacher, unscored) for column in line)}</ol>"
        for line in _lines(all_columns)
    )


def _lines(all_columns: list[Column]) -> Iterator[list[Column]]:
    """Columns in lists that end where a line of the text does."""
    line: list[Column] = []
    for column in all_columns:
        line.append(column)
        if "\n" in column.text or len(line) == _MAX_COLUMNS_PER_LINE:
            yield line
            line = []
    if line:
        yield line


def _item(column: Column, student: list[str], teacher: list[str], unscored: Collection[int]) -> str:
    name, label = _kind(column)
    classes = [name] if name else []
    if column.kind == "chunk" and column.student[0] in unscored:
        classes.append("unscored")
    if column.goes_on:
        classes.append("goes-on")
    if begins_with_mark(column.text):
        classes.append("mark")
    attribute = f' class="{" ".join(classes)}"' if classes else ""
    above = "".join(student[slice(*column.student)])
    below = "".join(teacher[slice(*column.teacher)])
    rows = f"<p>{above}</p><p>{text_html(column.text)}</p><p>{below}</p>"
    return f"<li{attribute}>{_label(label)}{rows}</li>"


def _kind(column: Column) -> tuple[str, str]:
    """The class and the label of a column; both empty for the common case."""
    if column.kind == "gap":
        return "gap", "gap"
    if column.kind == "untokenised":
        return "bare", "no token"
    sizes = [last - first for first, last in (column.student, column.teacher)]
    # Where there is no teacher, each student token is a column of its own.
    return ("", "") if sizes in ([1, 1], [1, 0]) else ("many", f"{sizes[0]}:{sizes[1]}")


def _label(label: str) -> str:
    return f"<small>{label}</small>" if label else ""


def details(side: dict[str, Any]) -> dict[str, list[Any]]:
    """Id, bytes and row of W of each distinct token, and which one each token is."""
    rows = side.get("projection")
    index_of: dict[str, int] = {}
    tokens: list[Any] = []
    order = []
    for index, (identifier, content) in enumerate(zip(side["ids"], side["bytes"], strict=True)):
        token = [identifier, content]
        if rows is not None:
            token.append([[visible(piece), round(w, 4)] for piece, w in rows[index] or ()])
        key = repr(token)
        if key not in index_of:
            index_of[key] = len(tokens)
            tokens.append(token)
        order.append(index_of[key])
    return {"tokens": tokens, "order": order}
