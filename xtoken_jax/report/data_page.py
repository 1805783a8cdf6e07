"""The page of what a config trains on: documents as in the page of an alignment, and numbers."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from xtoken_jax.report.alignment_page import EXAMPLES, details, flow, legend
from xtoken_jax.report.columns import Column, columns
from xtoken_jax.report.data_table import summary_cells
from xtoken_jax.report.page import data_block, page, table, visible

_EXAMPLES = (
    *EXAMPLES[:3],
    ("unscored", "", "a chunk that is read and not scored"),
)
_LONG_PAGE = 2000  # columns; see `alignment_page`


def data_page(
    documents: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], *, title: str
) -> str:
    """A self-contained HTML page: numbers of all data, then documents as the model will see them.

    Args:
        documents: Of `shown_documents`, each with the number of its `batch`.
        summary: As for `summary_cells`, with `dropped` records by kind and the message of the first
            of each kind, `first_dropped`.
        title: Plain text.
    """
    sections, student, teacher = _sections(documents)
    num_columns = sum(section.count("<li") for section in sections)
    body = f"""{table(summary_cells(summary))}
{_dropped(summary)}
{legend(_EXAMPLES)}
<p class="note"><bdi class="learnt">token</bdi> a student token that cross-entropy counts</p>
<p id="hint" hidden>Hover over, tap or focus a chunk for ids and bytes; the arrow keys move from \
chunk to chunk.</p>
<div id="flow" class="{"long" if num_columns > _LONG_PAGE else "short"}">
{"".join(sections)}
</div>
<aside id="tip" role="tooltip" hidden></aside>
{data_block("tokens", [details(student), details(teacher)])}"""
    return page(title, body, styles=["alignment.css", "data.css"], script="alignment.js")


def _sections(
    documents: Sequence[Mapping[str, Any]],
) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """Each document as HTML, and the ids and bytes of all tokens of both sides."""
    sections: list[str] = []
    student: dict[str, Any] = {"ids": [], "bytes": []}
    teacher: dict[str, Any] = {"ids": [], "bytes": []}
    for document in documents:
        sections.append(_heading(document))
        own = document["student"]
        for name, other in (document["teachers"] or {"": _nobody(own)}).items():
            if name:
                sections.append(f"<h3>{html.escape(visible(name))}</h3>\n")
            record = {**other, "student": own, "teacher": other}
            before = len(student["ids"]), len(teacher["ids"])
            sections.append(flow(_columns(record), record, before=before) + "\n")
            _add(teacher, other)
        _add(student, own)
    return sections, student, teacher


def _heading(document: Mapping[str, Any]) -> str:
    learnt = sum(document["student"]["learnt"])
    sizes = [f"{len(document['student']['ids']):,} student tokens, {learnt:,} learnt"]
    sizes += [
        f"{len(side['ids']):,} of {visible(name)}" for name, side in document["teachers"].items()
    ]
    place = f"batch {document['batch']}, row {document['row']}: {document['record']}"
    told = html.escape(visible(place, space=" ")), html.escape("; ".join(sizes))
    return f"<h2>{told[0]} <small>{told[1]}</small></h2>\n"


def _nobody(student: Mapping[str, Any]) -> dict[str, Any]:
    """Stands for the teacher where there is none; scored is what is learnt."""
    chunks = [[i, i + 1, 0, 0] for i in range(len(student["ids"]))]
    return {"ids": [], "bytes": [], "pieces": [], "chunks": chunks, "scored": student["learnt"]}


def _columns(record: dict[str, Any]) -> list[Column]:
    """Columns over the text that the student's tokens spell."""
    content = b"".join(map(bytes.fromhex, record["student"]["bytes"]))
    return columns(record, content.decode(errors="replace"))


def _add(side: dict[str, Any], tokens: Mapping[str, Any]) -> None:
    side["ids"] += tokens["ids"]
    side["bytes"] += tokens["bytes"]


def _dropped(summary: Mapping[str, Any]) -> str:
    if not summary["dropped"]:
        return '<p class="note">No record was left out.</p>'
    items = (
        f"<li>{count:,} {html.escape(kind)}, the first: "
        f"{html.escape(visible(summary['first_dropped'][kind], space=' '))}</li>"
        for kind, count in summary["dropped"].items()
    )
    return f"<p>Left out:</p><ul>{''.join(items)}</ul>"
