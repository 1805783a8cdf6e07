import copy

from tests.report.records import alignment
from tests.report.test_tables import cells, printed
from xtoken_jax.report import data_summary, document_tables

LENGTHS = {"student": 1024, "teachers": {"qwen": 1536}}
TEACHER = {"tokens": 1500, "longest": 40, "scored": 500, "student_gaps": 10, "gaps": 0}
COUNTS = {
    "rows": 2,
    "documents": 50,
    "cut": 3,
    "tokens": 1000,
    "longest": 31,
    "by_length": [0, 0, 0, 0, 30, 15, 5],
    "learnt": 999,
    "teachers": {"qwen": TEACHER},
}
SHARES = {"utilisation": 0.48828, "learnt": 0.999, "teachers": {"qwen": {"utilisation": 0.488}}}
SOURCE = {"source": "jsonl a.jsonl", "counts": COUNTS, "shares": SHARES}
SUMMARY = {
    "lengths": LENGTHS,
    "sources": [SOURCE],
    "total": SOURCE,
    "dropped": {},
    "first_dropped": {},
}


def document(**changes):
    """A bos that only the student has, a prompt, and an answer whose last token is not paired."""
    student = [b"", b"Q", b"201", b"A", b"4", b"!"]
    teacher = [b"Q", b"2", b"0", b"1", b"A", b"4", b"?"]
    record = alignment(student, teacher, [(1, 2, 0, 1), (2, 3, 1, 4), (3, 4, 4, 5), (4, 5, 5, 6)])
    other = record["teacher"] | {"chunks": record["chunks"], "gaps": record["gaps"]}
    other["scored"] = [False, False, True, True]
    own = record["student"] | {"learnt": [False, False, False, True, True, True]}
    teachers = {"qwen": other}
    shown = {"batch": 0, "row": 2, "record": "a.jsonl:7", "student": own, "teachers": teachers}
    return copy.deepcopy(shown | changes)


class TestSummary:
    def test_one_source(self):
        assert cells(data_summary(SUMMARY)) == [
            ["documents", "50"],
            ["of which cut", "3"],
            ["rows", "2"],
            ["student tokens", "1,000"],
            ["places filled, of 1,024 a row", "48.8%"],
            ["tokens a document, mean", "20.0"],
            ["tokens a document, longest", "31"],
            ["half, nine tenths of documents up to", "16, 32"],
            ["learnt by cross-entropy", "99.9%"],
            ["qwen tokens", "1,500"],
            ["qwen places filled, of 1,536 a row", "48.8%"],
            ["qwen tokens a document, mean", "30.0"],
            ["qwen tokens a document, longest", "40"],
            ["student tokens scored against qwen", "50.0%"],
            ["student tokens in no chunk of qwen", "1.0%"],
            ["qwen tokens in no chunk", "0%"],
        ]

    def test_several_sources_and_all_of_them(self):
        both = SOURCE | {"counts": COUNTS | {"documents": 100}}
        text = printed(data_summary(SUMMARY | {"sources": [SOURCE, SOURCE], "total": both}))
        assert "jsonl a.jsonl ┃ jsonl a.jsonl ┃" in text
        assert text.splitlines()[2].split("┃")[4].strip() == "all"
        assert cells(data_summary(SUMMARY | {"sources": [SOURCE, SOURCE], "total": both}))[0] == [
            "documents",
            "50",
            "50",
            "100",
        ]

    def test_a_source_of_which_nothing_is_left(self):
        nothing = {"documents": 0, "tokens": 0, "by_length": [], "learnt": 0, "teachers": {}}
        summary = SUMMARY | {"sources": [SOURCE | {"counts": COUNTS | nothing}]}
        rows = dict(cells(data_summary(summary)))
        assert rows["tokens a document, mean"] == "-"
        assert rows["half, nine tenths of documents up to"] == "-"


class TestDocument:
    def test_runs_of_chunks_with_what_counts(self):
        (table,) = document_tables(document())
        assert printed(table).splitlines()[0].strip() == "batch 0, row 2: a.jsonl:7"
        text = [line.replace(" │ ", " | ") for line in printed(table).splitlines()]
        rows = [[cell.strip(" │") for cell in line.split(" | ")] for line in text if "|" in line]
        assert rows == [
            ["gap", "<|control|>", ""],
            ["read", "Q│201", "Q│2╎0╎1"],
            ["scored", "A│4", "A│4"],
            ["gap, learnt", "!", "?"],
        ]

    def test_a_table_for_each_teacher(self):
        one = document()["teachers"]["qwen"]
        names = ["qwen", "phi"]
        tables = list(document_tables(document(teachers=dict.fromkeys(names, one))))
        assert [name in printed(table) for table, name in zip(tables, names, strict=True)] == [
            True,
            True,
        ]
        assert "phi" not in printed(tables[0])

    def test_without_teachers(self):
        (table,) = document_tables(document(teachers={}))
        assert [row[0] for row in cells(table)] == ["read", "read, learnt"]

    def test_what_would_not_be_seen_or_would_move_the_cursor_is_written_out(self):
        shown = document(record="a\x1b[2J.jsonl:1")
        shown["student"]["pieces"][1] = "\x1b[31m\n [bold]"
        (table,) = document_tables(shown)
        text = printed(table)
        assert "\x1b" not in text
        assert "U+001B[31m↵·[bold]" in text
