"""The page of one or several training runs: results, curves, settings, W, texts, speed."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from xtoken_jax.report.audit_page import LOSS_NAMES, categories, headline_numbers
from xtoken_jax.report.page import facts, page, table, text_html, visible
from xtoken_jax.report.run_charts import curves, speed
from xtoken_jax.report.runs import Run
from xtoken_jax.report.tables import evaluation_columns, evaluation_rows, source_of_row

_MOST_QUESTIONS = 3
_MISSING = "-"
_LAST = ("student after", "student's change")  # of the models, also where a run lacks others

# An audit's record, or why there is none.
Audit = Mapping[str, Any] | str


def run_page(runs: Sequence[Run], audits: Mapping[str, Mapping[str, Audit]], *, title: str) -> str:
    """A self-contained HTML page of runs, in which what several have in common is shown once.

    Args:
        runs: At least one, with names that differ.
        audits: Of W, by name of the run and by teacher.
        title: Plain text.
    """
    sections = {
        "Held-out texts": _results(runs),
        "Curves": curves(runs),
        "Settings": _settings(runs),
    }
    more = {"Generated text": _samples(runs), "Speed": speed(runs)}
    parts = [_overview(runs), *_sections(sections), *_audits(runs, audits), *_sections(more)]
    return page(title, "\n".join(parts), styles=["audit.css", "run.css"])


def _sections(contents: Mapping[str, str]) -> Iterable[str]:
    for title, content in contents.items():
        if content:
            yield f"<section>\n<h2>{_text(title)}</h2>\n{content}\n</section>"


def _text(text: str) -> str:
    return html.escape(visible(text, space=" "))


def _of(names: Sequence[str], runs: Sequence[Run]) -> str:
    """Which runs something is of, behind its name; nothing where it is of all."""
    return f" ({', '.join(dict.fromkeys(names))})" if {*names} != {run.name for run in runs} else ""


def _overview(runs: Sequence[Run]) -> str:
    """What each run is, and what of it is not there."""
    told = {"directory": lambda run: str(run.directory), "student": _student}
    told |= {"teachers": _teachers, "steps": _steps}
    rows = [["run", *(run.name for run in runs)]]
    rows += [[name, *map(tell, runs)] for name, tell in told.items()]
    notes: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        for note in run.notes.items():
            notes.setdefault(note, []).append(run.name)
    items = (
        f"<li>{_text(f'{file}{_of(names, runs)} {note}')}</li>"
        for (file, note), names in notes.items()
    )
    return table(rows, kind="words") + (f'<ul class="note">{"".join(items)}</ul>' if notes else "")


def _student(run: Run) -> str:
    model, tokenizer = (run.settings.get(f"student.{name}") for name in ("model", "tokenizer"))
    return f"{model or _MISSING}{f', tokens of {tokenizer}' if tokenizer else ''}"


def _teachers(run: Run) -> str:
    told = []
    for name in run.teachers:
        model, kind = (run.settings.get(f"teachers.{name}.{of}") for of in ("model", "loss.kind"))
        told.append(f"{name}: {model}, {kind}")
    return "; ".join(told) or _MISSING


def _steps(run: Run) -> str:
    done = run.metrics[-1]["step"] if run.metrics else 0
    return f"{done} of {run.settings.get('optim.steps', _MISSING)}"


def _results(runs: Sequence[Run]) -> str:
    """A row for each model, and for each run whose numbers differ from other runs'."""
    columns = evaluation_columns(result for run in runs for result in run.results.values())
    found: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for run in runs:
        for model, *cells in evaluation_rows(run.results, columns):
            found.setdefault(model, {}).setdefault(tuple(cells), []).append(run.name)
    if not found:
        return ""
    rows = [["model", *columns]]
    sources = [*dict.fromkeys(map(source_of_row, found))]

    def place(model: str) -> tuple[int, bool]:
        return sources.index(source_of_row(model)), model.partition(", ")[0] in _LAST

    for model, by_cells in sorted(found.items(), key=lambda item: place(item[0])):
        for cells, names in by_cells.items():
            rows.append([f"{model}{_of(names, runs)}", *cells])
    note = '<p class="note">All bytes and digit bytes: bits per byte, the fewer the better.</p>'
    return note + table(rows)


def _settings(runs: Sequence[Run]) -> str:
    """What differs between the runs, and, folded, what does not or only some have."""
    known = [run for run in runs if run.settings]
    if not known:
        return ""
    same: list[list[str]] = []
    differing: list[list[str]] = []
    partial: list[list[str]] = []
    for field in dict.fromkeys(field for run in known for field in run.settings):
        cells = [_value(run.settings, field) for run in known]
        if any(field not in run.settings for run in known):
            partial.append([field, *cells])
        elif len({*cells}) == 1:
            same.append([field, cells[0]])
        elif field != "run_dir":  # which the overview has
            differing.append([field, *cells])
    if len(known) == 1:
        return _folded("all fields", ["field", "value"], same)
    heading = ["field", *(run.name for run in known)]
    nothing = '<p class="note">No field that all runs have differs.</p>'
    told = table([heading, *differing], kind="words") if differing else nothing
    told += _folded("fields that only some runs have", heading, partial)
    return told + _folded("fields that are the same in all runs", ["field", "value"], same)


def _folded(summary: str, heading: list[str], rows: list[list[str]]) -> str:
    shown = table([heading, *rows], kind="words")
    return f"<details><summary>{summary} ({len(rows)})</summary>{shown}</details>" if rows else ""


def _value(settings: Mapping[str, Any], field: str) -> str:
    value = settings.get(field, _MISSING)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _audits(runs: Sequence[Run], audits: Mapping[str, Mapping[str, Audit]]) -> Iterable[str]:
    """A section for each audit that differs from the others."""
    found: list[tuple[Audit, dict[str, list[str]]]] = []
    for run, by_teacher in audits.items():
        for teacher, audit in by_teacher.items():
            of = next((of for other, of in found if other == audit), None)
            if of is None:
                found.append((audit, of := {}))
            of.setdefault(teacher, []).append(run)
    for audit, of in found:
        told = ", ".join(f"{teacher}{_of(names, runs)}" for teacher, names in of.items())
        yield from _sections(_audit(audit, told))


def _audit(audit: Audit, teachers: str) -> dict[str, str]:
    title = f"W: how the student's tokens reach {teachers}"
    if isinstance(audit, str):
        return {title: f'<p class="note">{_text(audit)}</p>'}
    loss = audit["recommendation"]["loss"]
    told = f"The audit recommends {LOSS_NAMES.get(loss, loss)}: {audit['recommendation']['reason']}"
    content = f'<p class="note">{_text(audit["student"])} to {_text(audit["teacher"])}.'
    content += f" {_text(told)}</p>{facts(headline_numbers(audit))}"
    return {title: content + categories(audit["categories"])}


def _samples(runs: Sequence[Run]) -> str:
    """What the models wrote to some prompts, first those that most runs had."""
    found: dict[tuple[str, str], dict[tuple[str, ...], list[str]]] = {}
    for run in runs:
        for each in run.samples:
            question = str(each["prompt"]), str(each.get("answer", ""))
            answer = str(each.get("model", "")), _verdict(each), str(each["text"])
            found.setdefault(question, {}).setdefault(answer, []).append(run.name)
    if not found:
        return ""
    num_runs = {q: len({*chain.from_iterable(answers.values())}) for q, answers in found.items()}
    shown = sorted(found, key=lambda question: -num_runs[question])[:_MOST_QUESTIONS]
    texts = "\n".join(_answers(*question, found[question], runs) for question in shown)
    rest = len(found) - len(shown)
    return texts + (f'<p class="note">{rest} more prompts were answered.</p>' if rest else "")


def _answers(
    prompt: str, right: str, answers: Mapping[tuple[str, ...], Sequence[str]], runs: Sequence[Run]
) -> str:
    models = list(dict.fromkeys(model for model, *_ in answers))
    items = []
    for model, verdict, text in sorted(answers, key=lambda answer: models.index(answer[0])):
        names = answers[model, verdict, text]
        told = ": ".join(filter(None, (f"{model}{_of(names, runs)}", verdict)))
        items.append(f"<dt>{_text(told)}</dt><dd><bdi>{text_html(text)}</bdi></dd>")
    expected = f'<p class="note">Right: {_text(right)}</p>' if right else ""
    return (
        f"<blockquote><bdi>{text_html(prompt)}</bdi>{expected}</blockquote>"
        f'<dl class="texts">{"".join(items)}</dl>'
    )


def _verdict(sample: Mapping[str, Any]) -> str:
    if "is_right" not in sample:
        return ""
    return "right" if sample["is_right"] else "wrong"
