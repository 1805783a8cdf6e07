import pytest

from tests.report.contrast import TEXTS_ON_BACKGROUNDS, unreadable
from tests.report.test_alignment_page import ATTACK, FITS, TIP
from tests.report.test_data_table import SUMMARY, document
from xtoken_jax.report import data_page

TEXTS = """
[...document.querySelectorAll("#flow ol")].map((line) =>
  [...line.children].map((column) => column.querySelectorAll("p")[1].textContent).join(""))
"""


def two_teachers():
    one = document()["teachers"]["qwen"]
    return document(teachers={"qwen": one, "phi": one}, record="b.jsonl:1")


@pytest.fixture
def opened(browser, tmp_path):
    """A function that writes a page and opens it."""

    def open_page(documents, summary=SUMMARY, *, title="a title", **window):
        path = tmp_path / "page.html"
        path.write_text(data_page(documents, summary, title=title), encoding="utf-8")
        browser.open(path, **window)
        return browser

    return open_page


class TestMarkup:
    def test_what_is_learnt_and_what_is_not_scored_are_marked(self):
        flow = data_page([document()], SUMMARY, title="marks").partition('id="flow"')[2]
        assert flow.count('<bdi class="learnt">') == 3
        assert flow.count('<li class="unscored">') == 1
        assert flow.count('<li class="many unscored"><small>1:3</small>') == 1
        assert flow.count('<li class="gap"><small>gap</small>') == 2
        assert flow.count("<li><p>") == 2
        assert "6 student tokens, 3 learnt; 7 of qwen" in flow

    def test_without_teachers_each_token_is_a_column(self):
        flow = data_page([document(teachers={})], SUMMARY, title="alone").partition('id="flow"')[2]
        assert flow.count("<li") == 6
        assert flow.count('<li class="unscored">') == 3
        assert "<h3>" not in flow

    def test_left_out_records_are_told_with_the_first_of_their_kind(self):
        bad = {"dropped": {"not JSON": 1200}, "first_dropped": {"not JSON": "f:7: <b> is"}}
        content = data_page([], SUMMARY | bad, title="bad")
        assert "<li>1,200 not JSON, the first: f:7: &lt;b&gt; is</li>" in content
        assert "No record was left out." in data_page([], SUMMARY, title="good")


class TestInBrowser:
    def test_each_document_is_there_for_each_teacher(self, opened):
        browser = opened([document(), two_teachers()])
        assert browser.evaluate(TEXTS) == ["Q201A4!"] * 3
        headings = "[...document.querySelectorAll('#flow h2, #flow h3')].map((h) => h.innerText)"
        names = [heading.split(" 6 ")[0] for heading in browser.evaluate(headings)]
        places = [f"batch 0, row 2: {name}" for name in ("a.jsonl:7", "b.jsonl:1")]
        assert names == [places[0], "qwen", places[1], "qwen", "phi"]
        assert browser.evaluate("document.querySelectorAll('.scroll tr').length") == 17

    def test_keys_cross_from_document_to_document_with_the_right_tokens(self, opened):
        other = two_teachers()
        other["student"]["ids"] = [900 + i for i in range(6)]
        other["teachers"]["phi"] = other["teachers"]["phi"] | {"ids": [800 + i for i in range(7)]}
        browser = opened([document(), other])
        browser.press("Tab")  # the table, which can be scrolled
        if browser.evaluate(TIP) is None:
            browser.press("Tab")
        tips = [browser.evaluate(TIP)]
        for _ in range(17):
            browser.press("ArrowRight")
            tips.append(browser.evaluate(TIP))
        heads = [" ".join(tip.split()) for tip in tips]
        assert heads[2] == (
            "chunk, not scored: 1 student token, 3 teacher tokens student 201 id 102 32 30 31 "
            "teacher 2 id 101 32 teacher 0 id 102 30 teacher 1 id 103 31"
        )
        assert (
            heads[3]
            == "chunk: 1 student token, 1 teacher token student A id 103 41 teacher A id 104 41"
        )
        assert heads[9].startswith("chunk: 1 student token, 1 teacher token student A id 903 41")
        assert heads[9].endswith("teacher A id 104 41")
        assert heads[15].endswith("student A id 903 41 teacher A id 804 41")
        browser.press("Home")
        assert "id 100" in browser.evaluate(TIP)
        browser.press("End")
        assert "id 905" in browser.evaluate(TIP)

    def test_hostile_names_and_tokens_are_inert(self, opened):
        hostile = document(record=ATTACK)
        hostile["student"]["pieces"][1] = ATTACK
        hostile["teachers"] = {ATTACK: hostile["teachers"]["qwen"]}
        summary = SUMMARY | {"dropped": {ATTACK: 1}, "first_dropped": {ATTACK: ATTACK}}
        summary |= {"sources": [SUMMARY["sources"][0] | {"source": ATTACK}]}
        browser = opened([hostile], summary, title=ATTACK)
        browser.press("Tab")
        assert browser.evaluate("typeof window.hacked") == "undefined"
        assert browser.evaluate("document.scripts.length") == 2
        assert browser.evaluate("document.images.length") == 0
        assert browser.complaints == []
        assert len(browser.requests) == 1

    @pytest.mark.parametrize("dark", [False, True])
    def test_contrast(self, opened, dark):
        browser = opened([document()], dark=dark)
        texts = browser.evaluate(TEXTS_ON_BACKGROUNDS)
        expected = {"201", "1:3", "gap", "qwen", "learnt by cross-entropy"}
        assert expected <= {text for text, *_ in texts}
        assert unreadable(texts) == []

    def test_it_fits_a_phone(self, opened):
        sources = [SUMMARY["sources"][0]] * 4
        browser = opened([document()], SUMMARY | {"sources": sources}, width=360)
        assert browser.evaluate("window.innerWidth") == 360
        assert browser.evaluate(FITS)
