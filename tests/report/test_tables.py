from rich.console import Console

from tests.report.records import AUDIT
from xtoken_jax.report import alignment_table, audit_table, evaluation_table

RESULTS = {
    "student before": {"all": 2.0, "digits": 4.0},
    "teacher": {"all": 1.25, "digits": None},
    "student after": {"all": 1.5, "digits": 5.0},
}


def printed(table, *, width: int = 120) -> str:
    console = Console(width=width, markup=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def cells(table, *, width: int = 120) -> list[list[str]]:
    lines = printed(table, width=width).splitlines()
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]


class TestEvaluationTable:
    def test_a_row_for_each_model_and_the_students_change(self):
        assert cells(evaluation_table(RESULTS)) == [
            ["student before", "2.000", "4.000"],
            ["teacher", "1.250", "-"],
            ["student after", "1.500", "5.000"],
            ["student's change", "-25.0%", "+25.0%"],
        ]

    def test_no_change_is_shown_for_a_run_that_has_not_ended(self):
        before = {name: RESULTS[name] for name in ("student before", "teacher")}
        assert "change" not in printed(evaluation_table(before))

    def test_no_change_is_shown_between_different_texts(self):
        other = {
            name: RESULTS[name] | {"num_bytes": count}
            for name, count in (("student before", 9), ("student after", 10))
        }
        assert "change" not in printed(evaluation_table(other))

    def test_digits_may_be_missing(self):
        nothing = {
            name: {"all": 2.0, "digits": None} for name in ("student before", "student after")
        }
        assert "+0.0%" in printed(evaluation_table(nothing))

    def test_sources_have_rows_of_their_own(self):
        sources = {"sums": {"all": 3.0, "digits": 6.0}, "words": {"all": 1.0, "digits": None}}
        results = {
            "student before": {**RESULTS["student before"], "sources": sources},
            "student after": {**RESULTS["student after"], "sources": sources},
        }
        assert cells(evaluation_table(results))[2:] == [
            ["student's change", "-25.0%", "+25.0%"],
            ["student before, sums", "3.000", "6.000"],
            ["student after, sums", "3.000", "6.000"],
            ["student's change, sums", "+0.0%", "+0.0%"],
            ["student before, words", "1.000", "-"],
            ["student after, words", "1.000", "-"],
            ["student's change, words", "+0.0%", "-"],
        ]


def side(*pieces):
    return {"pieces": list(pieces)}


class TestTokenTables:
    """Tokens may hold brackets, which are not rich's markup."""

    def test_alignment(self):
        record = {
            "path": "bytes",
            "student": side("<s>", "[/b]"),
            "teacher": side("[", "/", "b]"),
            "chunks": [[1, 2, 0, 3]],
            "gaps": {"student": [0], "teacher": []},
        }
        text = printed(alignment_table(record))
        assert "│ '[/b]'      │ '[' '/' 'b]' │" in text
        assert "│ gaps: '<s>' │ gaps: none   │" in text


class TestAuditTable:
    def test_every_number_is_in_it(self):
        rows = cells(audit_table(AUDIT))
        assert ["overlap, by bytes", "79.98%"] in rows
        assert ["unreachable teacher tokens", "8,734"] in rows
        assert ["3-digit numerals", "1,000", "0", "20", "970", "10"] in rows
        assert ["in corpus", "7.0%", "0%", "14.3%", "85.7%", "0%"] in rows
        assert ["5+", "4,800", "4,700"] in rows

    def test_it_ends_in_the_recommendation(self):
        last = printed(audit_table(AUDIT)).splitlines()[-1]
        assert last == "use P-KL: The exact common set holds only 0 of 1000 <i>[b] numerals."

    def test_it_fits_a_terminal_of_80_columns(self):
        rows = cells(audit_table(AUDIT), width=80)
        assert ["3-digit numerals", "1,000", "0", "20", "970", "10"] in rows
