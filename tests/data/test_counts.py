import dataclasses
import functools

import pytest

from tests.tiny import sentences
from xtoken_jax.data import (
    Document,
    Lengths,
    Plan,
    PreparedRows,
    RowCounts,
    Rows,
    Tally,
    TeacherCounts,
    count_rows,
    joined,
    make_examples,
    pack,
    prepare,
    source_counts,
)

LENGTHS = Lengths(64, {"one": 96, "two": 70})
# One is too long, and is cut.
TEXTS = [*sentences(136), " ".join(sentences(6))]


def documents(texts=TEXTS):
    return [Document(text, f"f:{i}", 5 * (i % 2)) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def teachers(tokenizers):
    student, teacher = tokenizers
    return {"one": teacher, "two": student}


@pytest.fixture(scope="module")
def examples(tokenizers, teachers):
    lengths = {"student_length": LENGTHS.student, "teacher_lengths": LENGTHS.teachers}
    return make_examples(documents(), tokenizers[0], teachers, **lengths)


def slow_counts(examples, num_rows):
    """Token by token, from the documents before they were packed."""
    learnt, by_length = 0, [0] * 7
    teachers = {
        name: dict.fromkeys(("scored", "student_gaps", "gaps"), 0) for name in ("one", "two")
    }
    for example in examples:
        size = len(example.student_ids)
        by_length[next(i for i in range(7) if size <= 2**i)] += 1
        learnt += sum(bool(example.loss_mask[i]) for i in range(1, size))
        for name, side in example.teachers.items():
            teachers[name]["gaps"] += sum(chunk < 0 for chunk in side.teacher_chunk.tolist())
            for chunk in side.student_chunk.tolist():
                own = [j for j in range(size) if side.student_chunk[j] == chunk]
                other = [j for j in range(len(side.ids)) if side.teacher_chunk[j] == chunk]
                if chunk < 0:
                    teachers[name]["student_gaps"] += 1
                elif own[0] and other[0] and all(example.loss_mask[j] for j in own):
                    teachers[name]["scored"] += 1
    lengths = {name: [len(e.teachers[name].ids) for e in examples] for name in teachers}
    student_lengths = [len(example.student_ids) for example in examples]
    return RowCounts(
        rows=num_rows,
        documents=len(examples),
        cut=1,
        tokens=sum(student_lengths),
        longest=max(student_lengths),
        by_length=by_length,
        learnt=learnt,
        teachers={
            name: TeacherCounts(tokens=sum(lengths[name]), longest=max(lengths[name]), **each)
            for name, each in teachers.items()
        },
    )


def test_rows_are_counted_as_a_slow_loop_does(examples):
    rows = pack(examples, LENGTHS)
    assert len(rows) > 64  # in several parts
    counts = count_rows(rows)
    assert counts == slow_counts(examples, len(rows))
    assert RowCounts.from_dict(counts.to_dict()) == counts


def test_shares(examples):
    rows = pack(examples, LENGTHS)
    counts = count_rows(rows)
    shares = counts.shares(LENGTHS)
    assert shares["utilisation"] == (rows.arrays["student:segments"] > 0).mean()
    one = shares["teachers"]["one"]
    assert one["utilisation"] == (rows.arrays["teacher:one:segments"] > 0).mean()
    assert one["student_gaps"] == pytest.approx(len(examples) / counts.tokens)  # their bos
    assert 0 < one["scored"] < shares["learnt"] < 1
    assert one["gaps"] == 0
    nothing = RowCounts(teachers={"one": TeacherCounts()}).shares(LENGTHS)
    assert nothing["utilisation"] == nothing["teachers"]["one"]["scored"] == 0


def test_sources_are_counted_apart_and_add_up(examples):
    parts = [pack(examples[:20], LENGTHS), pack(examples[20:], LENGTHS)]
    counts = source_counts(joined(parts, {}))
    assert counts == [count_rows(part) for part in parts]
    whole = pack(examples, LENGTHS)
    total = dataclasses.replace(sum(counts, RowCounts()), rows=len(whole))
    assert total == count_rows(whole)


def test_no_rows():
    assert count_rows(Rows(pack([], LENGTHS).arrays, [], LENGTHS)) == RowCounts()


def test_prepared_rows_were_counted_when_they_were_made(tmp_path, tokenizers, teachers, examples):
    description = {
        "lengths": {"student": LENGTHS.student, "teachers": LENGTHS.teachers},
        "sources": ["first", "second"],
    }
    plan = functools.partial(Plan, tokenizers[0], teachers, LENGTHS, None, description)
    sources = [lambda: documents()[:20], lambda: documents()[20:]]
    prepare(tmp_path, sources, plan, Tally(), block_bytes=2000)
    found = source_counts(PreparedRows(tmp_path))
    expected = [count_rows(pack(part, LENGTHS)) for part in (examples[:20], examples[20:])]
    # Shards are packed apart, into more rows.
    assert [dataclasses.replace(each, rows=0) for each in found] == [
        dataclasses.replace(each, rows=0) for each in expected
    ]
    assert [each.rows for each in found] == PreparedRows(tmp_path).num_rows
