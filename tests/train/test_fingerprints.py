import dataclasses

import numpy as np
import pytest

from xtoken_jax.data import Example, TeacherTokens
from xtoken_jax.train.fingerprints import Fingerprints, changed_sources


def fingerprints(examples):
    hashes = Fingerprints()
    hashes.add(examples[:1])
    hashes.add(examples[1:])
    return hashes.hexdigests()


def example(record, *ids):
    ids = np.array(ids, np.int32)
    chunk = np.arange(len(ids), dtype=np.int32)
    return Example(ids, ids > 0, {"one": TeacherTokens(ids + 1, chunk, chunk)}, record)


EXAMPLES = [example("a.jsonl:1", 5, 6), example("b.jsonl:1", 7), example("a.jsonl:2", 8)]


def test_one_for_each_source():
    assert fingerprints(EXAMPLES).keys() == {"a.jsonl", "b.jsonl"}
    assert fingerprints([example("note.txt", 1)]).keys() == {"note.txt"}


def assert_only_the_last_source_changed(last):
    now = fingerprints([*EXAMPLES[:2], last])
    assert changed_sources(fingerprints(EXAMPLES), now) == ["a.jsonl"]


def test_what_changes_on_the_students_side_names_its_source():
    last = EXAMPLES[2]
    for changed in ({"student_ids": last.student_ids + 1}, {"loss_mask": ~last.loss_mask}):
        assert_only_the_last_source_changed(dataclasses.replace(last, **changed))


@pytest.mark.parametrize("field", ["ids", "student_chunk", "teacher_chunk"])
def test_what_changes_on_a_teachers_side_names_its_source(field):
    last = EXAMPLES[2]
    teacher = last.teachers["one"]
    changed = dataclasses.replace(teacher, **{field: getattr(teacher, field) + 1})
    assert_only_the_last_source_changed(dataclasses.replace(last, teachers={"one": changed}))
    assert_only_the_last_source_changed(dataclasses.replace(last, teachers={"two": teacher}))


def test_order_cuts_and_what_comes_and_goes_count():
    before = fingerprints(EXAMPLES)
    assert changed_sources(before, fingerprints(EXAMPLES[::-1])) == ["a.jsonl"]
    assert changed_sources(before, fingerprints(EXAMPLES[1:])) == ["a.jsonl"]
    assert changed_sources(before, fingerprints([EXAMPLES[0], EXAMPLES[2]])) == ["b.jsonl"]
    joined = [example("a.jsonl:1", 5, 6, 7)]
    cut = [example("a.jsonl:1", 5), example("a.jsonl:1", 6, 7)]
    assert fingerprints(joined) != fingerprints(cut)
