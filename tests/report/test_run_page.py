import html
import re
from pathlib import Path

import pytest

from tests.report.contrast import TEXTS_ON_BACKGROUNDS, unreadable
from tests.report.records import AUDIT
from tests.report.test_alignment_page import ATTACK, FITS
from xtoken_jax.report import run_page
from xtoken_jax.report.chart import style
from xtoken_jax.report.runs import Run

BEFORE = {"all": 2.0, "digits": 4.0, "num_bytes": 9}
SETTINGS = {
    "run_dir": "runs/a",
    "student.model": "asset:student",
    "student.tokenizer": "asset:llama3",
    "student.layers": [0, 2],
    "teachers.tiny.model": "asset:teacher",
    "teachers.tiny.loss.kind": "p_kl",
    "optim.steps": 40,
}


def record(step, **metrics):
    shared = {"cross_entropy": 3.0 / step, "tiny/distillation": 1.0, "tiny/agreement": 0.5}
    speed = {"tokens_per_second": 1000.0 * step, "data_seconds": 0.25, "utilisation": 0.5}
    return {"step": step, **shared, **speed, "distillation": 1.0, "tiny/num_chunks": 9.0, **metrics}


def answer(model, text, *, prompt="2 + 2 =", is_right=False):
    return {"model": model, "prompt": prompt, "text": text, "answer": "4", "is_right": is_right}


def a_run(name="a", **changes):
    content = {
        "settings": SETTINGS,
        "metrics": [record(step) for step in (1, 2, 3)],
        "results": {"student before": BEFORE, "student after": BEFORE | {"all": 1.5}},
        "samples": [answer("student before", "5"), answer("student after", "4", is_right=True)],
        "notes": {},
    }
    return Run(name, Path("runs") / name, **(content | changes))


def two_runs():
    other = a_run(
        "b",
        settings=SETTINGS | {"run_dir": "runs/b", "teachers.tiny.loss.kind": "uld"},
        metrics=[record(step) for step in range(1, 700)],
        results={"student before": BEFORE, "student after": BEFORE | {"all": 1.0}},
        samples=[answer("student before", "5"), answer("student after", "44")],
    )
    return [a_run(), other]


def words_of(content: str) -> str:
    body = content.partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def page_of(*runs, audits=None):
    return run_page(runs, audits or {}, title="runs")


def cells(content: str, heading: str) -> list[list[str]]:
    """Of the first table after a heading."""
    table = content.partition(f"<h2>{heading}</h2>")[2].partition("</table>")[0]
    return [
        [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>([^<]*)</t", row)]
        for row in table.split("<tr>")[1:]
    ]


class TestOverview:
    def test_what_a_run_is(self):
        words = words_of(page_of(a_run()))
        assert (
            "run a directory runs/a student asset:student, tokens of asset:llama3 "
            "teachers tiny: asset:teacher, p_kl steps 3 of 40" in words
        )

    def test_what_is_not_there_is_told_once(self):
        notes = {"samples.jsonl": "is not there; <b>"}
        runs = [a_run("a", notes=notes), a_run("b", notes=notes), a_run("c")]
        assert words_of(page_of(runs[0])).count("samples.jsonl is not there; <b>") == 1
        assert words_of(page_of(*runs)).count("samples.jsonl (a, b) is not there; <b>") == 1

    def test_a_run_of_which_nothing_can_be_read(self):
        nothing = {"settings": {}, "metrics": [], "results": {}, "samples": []}
        content = page_of(a_run(**nothing, notes={"config.yaml": "is not there"}))
        assert "<h2>" not in content
        assert "0 of -" in content


class TestResults:
    def test_of_one_run(self):
        assert cells(page_of(a_run()), "Held-out texts") == [
            ["model", "all bytes", "digit bytes"],
            ["student before", "2.000", "4.000"],
            ["student after", "1.500", "4.000"],
            ["student's change", "-25.0%", "+0.0%"],
        ]

    def test_what_is_the_same_in_all_runs_is_there_once(self):
        assert cells(page_of(*two_runs()), "Held-out texts") == [
            ["model", "all bytes", "digit bytes"],
            ["student before", "2.000", "4.000"],
            ["student after (a)", "1.500", "4.000"],
            ["student after (b)", "1.000", "4.000"],
            ["student's change (a)", "-25.0%", "+0.0%"],
            ["student's change (b)", "-50.0%", "+0.0%"],
        ]

    def test_the_student_comes_last(self):
        results = {"student before": BEFORE, "teacher x": BEFORE, "student after": BEFORE}
        rows = cells(page_of(a_run(), a_run("b", results=results)), "Held-out texts")
        assert [row[0] for row in rows[1:]] == [
            "student before",
            "teacher x (b)",
            "student after (a)",
            "student after (b)",
            "student's change (a)",
            "student's change (b)",
        ]

    def test_sources_follow_each_other(self):
        with_source = BEFORE | {"sources": {"sums": BEFORE}}
        first = {"student before": with_source, "student after": with_source}
        runs = a_run(results=first), a_run("b", results={"teacher x": with_source, **first})
        rows = cells(page_of(*runs), "Held-out texts")
        models = ["student before", "teacher x (b)", "student after", "student's change"]
        of_sums = [
            "student before, sums",
            "teacher x, sums (b)",
            "student after, sums",
            "student's change, sums",
        ]
        assert [row[0] for row in rows[1:]] == [*models, *of_sums]

    def test_columns_of_some_runs_alone(self):
        solved = BEFORE | {"exact_match": 0.5, "num_questions": 4}
        rows = cells(page_of(a_run(), a_run("b", results={"other": solved})), "Held-out texts")
        assert rows[0] == ["model", "all bytes", "digit bytes", "right answers"]
        assert rows[1] == ["student before (a)", "2.000", "4.000", "-"]
        assert ["other (b)", "2.000", "4.000", "2 of 4"] in rows


class TestCurves:
    def titles(self, *runs):
        return re.findall(r"<figcaption>([^<]*)", html.unescape(page_of(*runs)))

    def test_what_was_logged_is_drawn(self):
        assert self.titles(a_run()) == [
            "cross-entropy",
            "distillation",
            "agreement with tiny through W",
            "speed",
            "wait for data",
            "filled places of the student's rows",
        ]

    def test_metrics_that_are_not_known_by_name_are_drawn_too(self):
        run = a_run(metrics=[record(1, bits_per_byte=1.5)])
        assert "bits per byte" in self.titles(run)

    def test_losses_of_several_teachers(self):
        run = a_run(metrics=[record(1, **{"other/distillation": 2.0})])
        assert self.titles(run)[1:5] == [
            "distillation",
            "distillation from tiny",
            "distillation from other",
            "agreement with tiny through W",
        ]

    def test_runs_have_styles_and_a_legend(self):
        content = page_of(*two_runs())
        assert content.count('<ul class="legend">') == 2  # of curves, and of speed
        assert content.count(f'class="curve {style(1)}"') == 6 + 2
        assert '<ul class="legend">' not in page_of(a_run())

    def test_means_are_told(self):
        assert "means of neighbours" in page_of(*two_runs())
        assert "means of neighbours" not in page_of(a_run())

    def test_speed_in_numbers(self):
        assert cells(page_of(a_run()), "Speed")[1] == [
            "a",
            "2,000",
            "250.0 ms a step",
            "0.8 s",
            "50.0%",
        ]


class TestSettings:
    def test_only_what_differs(self):
        content = page_of(*two_runs())
        assert cells(content, "Settings") == [
            ["field", "a", "b"],
            ["teachers.tiny.loss.kind", "p_kl", "uld"],
        ]
        assert "<summary>fields that are the same in all runs (5)</summary>" in content

    def test_one_run_has_all_of_them(self):
        content = page_of(a_run())
        assert "<summary>all fields (7)</summary>" in content
        assert ["student.layers", "[0, 2]"] in cells(content, "Settings")

    def test_fields_that_only_some_runs_have(self):
        fewer = {field: value for field, value in SETTINGS.items() if field != "optim.steps"}
        content = page_of(a_run(), a_run("b", settings=fewer))
        assert "No field that all runs have differs." in content
        assert "<summary>fields that only some runs have (1)</summary>" in content
        assert cells(content, "Settings")[1:] == [["optim.steps", "40", "-"]]

    def test_nothing_differs(self):
        content = page_of(a_run(), a_run("b"))
        assert "No field that all runs have differs." in content
        assert "only some runs have" not in content


class TestAudits:
    def test_equal_audits_are_shown_once(self):
        audits = {"a": {"tiny": AUDIT}, "b": {"tiny": dict(AUDIT)}}
        content = page_of(*two_runs(), audits=audits)
        assert content.count('<ul class="bars">') == 1
        words = words_of(content)
        assert "W: how the student's tokens reach tiny asset:llama3 to asset:smollm2-135m." in words
        assert "The audit recommends P-KL: The exact common set holds only 0 of 1000 <i>" in words
        assert "3-digit numerals 1,000 tokens added by H-KL 20 (2.0%)" in words

    def test_others_are_of_their_runs(self):
        audits = {"a": {"tiny": AUDIT}, "b": {"tiny": AUDIT | {"empty_rows": 3}}}
        content = page_of(*two_runs(), audits=audits)
        assert content.count('<ul class="bars">') == 2
        assert "reach tiny (a)" in words_of(content)
        assert "reach tiny (b)" in words_of(content)

    def test_a_line_says_why_there_is_none(self):
        words = words_of(page_of(a_run(), audits={"a": {"tiny": "There is no audit: <m>"}}))
        assert "reach tiny There is no audit: <m>" in words


class TestSamples:
    def test_equal_answers_of_runs_are_shown_once(self):
        words = words_of(page_of(*two_runs()))
        assert (
            "Generated text 2 + 2 = Right: 4 student before: wrong 5 "
            "student after (a): right 4 student after (b): wrong 44" in words
        )

    def test_a_few_prompts_those_of_most_runs_first(self):
        others = [answer("student after", "x", prompt=f"prompt {n}") for n in range(5)]
        runs = [a_run(samples=others), a_run("b", samples=others[4:])]
        words = words_of(page_of(*runs))
        assert re.findall(r"prompt \d", words) == ["prompt 4", "prompt 0", "prompt 1"]
        assert "2 more prompts were answered." in words

    def test_texts_alone(self):
        run = a_run(samples=[{"prompt": "Two and", "text": " two"}])
        assert "<blockquote><bdi>Two and</bdi></blockquote>" in page_of(run)


class TestInBrowser:
    @pytest.fixture
    def opened(self, browser, tmp_path):
        """A function that writes a page and opens it."""

        def open_page(runs, *, audits=None, title="a title", **window):
            path = tmp_path / "page.html"
            path.write_text(run_page(runs, audits or {}, title=title), encoding="utf-8")
            browser.open(path, **window)
            return browser

        return open_page

    def test_hostile_names_and_texts_are_inert(self, opened):
        run = a_run(
            ATTACK,
            settings=SETTINGS | {f"teachers.{ATTACK}.model": ATTACK, ATTACK: [ATTACK]},
            metrics=[record(1, **{f"{ATTACK}/agreement": 1.0, f"{ATTACK}\u202e": 1.0})],
            results={ATTACK: BEFORE | {"agreement": {ATTACK: {"share": 0.5}}}},
            samples=[answer(ATTACK, f"{ATTACK}\u202e", prompt=ATTACK) | {"answer": ATTACK}],
            notes={ATTACK: ATTACK},
        )
        told = {**AUDIT, "student": ATTACK, "teacher": ATTACK}
        audits = {ATTACK: {ATTACK: told, "tiny": ATTACK}}
        browser = opened([run, a_run()], audits=audits, title=ATTACK)
        assert browser.evaluate("typeof window.hacked") == "undefined"
        assert browser.evaluate("document.scripts.length + document.images.length") == 0
        assert "\u202e" not in browser.evaluate("document.documentElement.outerHTML")
        assert browser.complaints == []
        assert len(browser.requests) == 1

    @pytest.mark.parametrize("dark", [False, True])
    def test_contrast(self, opened, dark):
        browser = opened(two_runs(), audits={"a": {"tiny": AUDIT}}, dark=dark)
        browser.evaluate("document.querySelector('details').open = true")
        texts = browser.evaluate(TEXTS_ON_BACKGROUNDS)
        seen = {"nats per token", "step", "student after (a)", "asset:llama3", "exact match"}
        assert seen <= {text for text, *_ in texts}
        assert unreadable(texts) == []

    @pytest.mark.parametrize("dark", [False, True])
    def test_curves_are_seen_on_the_page(self, opened, dark):
        runs = [a_run(name) for name in "abcdef"]
        browser = opened(runs, dark=dark)
        strokes = """[...document.querySelectorAll('.legend .curve')].slice(0, 6).map((curve) => [
          curve.parentElement.parentElement.textContent,
          getComputedStyle(curve).stroke.match(/\\d+/g).map(Number),
          [getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)]])"""
        found = browser.evaluate(strokes)
        assert [name for name, *_ in found] == list("abcdef")
        assert len({tuple(stroke) for _, stroke, _ in found}) == 6
        assert unreadable(found) == []
        dashes = """[...document.querySelectorAll('.legend .curve')].slice(0, 6).map(
          (curve) => getComputedStyle(curve).strokeDasharray)"""
        assert len({*browser.evaluate(dashes)}) == 6

    def test_it_fits_a_phone(self, opened):
        runs = [a_run(f"a-run-with-a-long-name-{n}" * 2) for n in range(4)]
        browser = opened(runs, audits={runs[0].name: {"tiny": AUDIT}}, width=360)
        browser.evaluate("document.querySelector('details').open = true")
        assert browser.evaluate("window.innerWidth") == 360
        assert browser.evaluate(FITS)
