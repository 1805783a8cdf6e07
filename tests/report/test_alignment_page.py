import re

import pytest

from tests.report.contrast import TEXTS_ON_BACKGROUNDS, unreadable
from tests.report.records import alignment, finest
from xtoken_jax.report import alignment_page

# Every column of the page, with the text in its middle row: signs without a class stand for a
# character that is not seen.
PAGE_TEXT = """
[...document.querySelectorAll("#flow li")].map((column) => {
  const cell = column.querySelectorAll("p")[1].cloneNode(true);
  for (const sign of cell.querySelectorAll("i:not([class])"))
    sign.replaceWith(String.fromCodePoint(parseInt(sign.textContent.slice(2), 16)));
  return cell.textContent;
}).join("")
"""
FITS = "document.documentElement.scrollWidth <= window.innerWidth"
TIP = "document.getElementById('tip').hidden ? null : document.getElementById('tip').innerText"
# Without spaces, since those of tokens are shown as dots.
ATTACK = "</script></p><script>window.hacked=1</script><img/src=x/onerror=window.hacked=1>"


def with_rows(record):
    """The record with a row of W for each student token."""
    pieces = record["student"]["pieces"]
    rows = [[["2\u202e", 0.9009], [piece, 0.0991]] for piece in pieces]
    record["student"]["projection"] = rows
    return record


def numerals():
    student = [b"", b"In", b" ", b"201", b" apples", b"\n", b""]
    teacher = [b"In", b" ", b"2", b"0", b"1", b" app", b"les", b"\n", b"", b""]
    chunks = [(1, 2, 0, 1), (2, 3, 1, 2), (3, 4, 2, 5), (4, 5, 5, 7), (5, 6, 7, 8), (6, 7, 8, 9)]
    return with_rows(alignment(student, teacher, chunks)), "In 201 apples\n"


def hostile():
    text = (
        ATTACK + "\x00\u202ereversed\u2066 \u200b\u0301 e" + "\u0301" * 50 + " \r\n\t\"'&amp; "
        "👩🏽‍🚀 مرحبا 南京 \ufe0f\ufeff U+202E "
    )
    content = text.encode()
    student = [content[i : i + 7] for i in range(0, len(content), 7)]
    teacher = [content[i : i + 3] for i in range(0, len(content), 3)]
    record = with_rows(finest(student, teacher))
    record["student"]["projection"][3] = [[ATTACK, 1.0]]
    return record, text


@pytest.fixture
def opened(browser, tmp_path):
    """A function that writes a page and opens it."""

    def open_page(record, text, *, title="a title", **window):
        path = tmp_path / "page.html"
        path.write_text(alignment_page(record, text, title=title), encoding="utf-8")
        browser.open(path, **window)
        return browser

    return open_page


def centre(browser, index):
    """Where the middle of a column is in the window."""
    script = f"document.querySelectorAll('#flow li')[{index}].getBoundingClientRect().toJSON()"
    box = browser.evaluate(script)
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


class TestMarkup:
    def test_counts(self):
        content = alignment_page(*numerals(), title="counts")
        tiles = re.findall(r"<div><dt>([^<]*)</dt><dd>([^<]*)</dd></div>", content)
        assert dict(tiles) == {
            "student tokens": "7",
            "teacher tokens": "10",
            "chunks": "6",
            "1 to 1": "4",
            "n to m": "2",
            "student gaps": "1",
            "teacher gaps": "1",
            "path": "bytes",
        }

    def test_kinds_are_told_in_words(self):
        record, text = numerals()
        flow = alignment_page(record, text + "\x04", title="kinds").partition('id="flow"')[2]
        assert flow.count('<li class="many"><small>1:3</small>') == 1
        assert flow.count('<li class="gap"><small>gap</small>') == 2
        assert flow.count('<li class="bare"><small>no token</small>') == 1

    def test_the_same_token_is_described_once(self):
        record = finest([b"a"] * 1000, [b"a"] * 1000)
        record["student"]["ids"] = record["teacher"]["ids"] = [5] * 1000
        assert alignment_page(record, "a" * 1000, title="same").count('[5,"61"]') == 2

    def test_lines_are_lists_that_know_where_their_tokens_begin(self):
        record = finest([b"a", b"\n", b"b", b"c"], [b"a\n", b"b", b"c"])
        content = alignment_page(record, "a\nbc", title="lines")
        starts = re.findall(r'<ol data-student="(\d+)" data-teacher="(\d+)">', content)
        assert starts == [("0", "0"), ("2", "1")]

    def test_fifty_thousand_tokens_are_a_page_of_a_few_megabytes(self, opened):
        tokens = [b" token" if i % 20 else b".\n" for i in range(50_000)]
        record = finest(tokens, tokens)
        record["student"]["ids"] = record["teacher"]["ids"] = [len(token) for token in tokens]
        text = b"".join(tokens).decode()
        assert len(alignment_page(record, text, title="large")) < 6_000_000
        assert opened(record, text).evaluate(PAGE_TEXT) == text


class TestInBrowser:
    @pytest.mark.parametrize("case", [numerals, hostile])
    def test_the_text_is_shown_once_and_whole(self, opened, case):
        record, text = case()
        assert opened(record, text).evaluate(PAGE_TEXT) == text

    def test_without_script_the_tokens_are_there(self, opened):
        browser = opened(*numerals(), scripts=False)
        rows = "[...document.querySelectorAll('#flow li')].map((c) => c.innerText.split(/\\s+/))"
        assert ["1:3", "201", "201", "2", "0", "1"] in browser.evaluate(rows)
        assert browser.evaluate("document.getElementById('hint').hidden")

    def test_hostile_text_is_inert(self, opened):
        record, text = hostile()
        browser = opened(record, text, title=ATTACK)
        num_columns = browser.evaluate("document.querySelectorAll('#flow li').length")
        browser.press("Tab")
        for _ in range(num_columns):
            assert "row of W" in browser.evaluate(TIP)
            browser.press("ArrowRight")
        assert browser.evaluate("typeof window.hacked") == "undefined"
        assert browser.evaluate("document.scripts.length") == 2
        assert browser.evaluate("document.images.length") == 0
        cells = "[...document.querySelectorAll('#flow li')].every((c) => c.matches(':has(p+p+p)'))"
        assert browser.evaluate(cells)
        assert browser.complaints == []
        assert len(browser.requests) == 1

    def test_no_control_character_is_left_to_the_browser(self):
        content = alignment_page(*hostile(), title="\u202e\x00")
        assert not [c for c in content if not c.isprintable() and c not in "\n\t"]

    def test_a_script_that_got_in_would_not_run(self, browser, tmp_path):
        content = alignment_page(*numerals(), title="policy")
        path = tmp_path / "page.html"
        path.write_text(content.replace("</main>", "<script>window.hacked = 1</script></main>"))
        browser.open(path)
        assert browser.evaluate("typeof window.hacked") == "undefined"
        assert "Content Security Policy" in browser.complaints[0]

    @pytest.mark.parametrize("case", [numerals, hostile])
    def test_it_fits_a_phone(self, opened, case):
        browser = opened(*case(), width=360, title="a_title_" * 30)
        assert browser.evaluate("window.innerWidth") == 360
        assert browser.evaluate(FITS)

    def test_a_long_token_fits_a_phone(self, opened):
        spaces, letters = b" " * 128, b"a" * 128
        record = finest([spaces, letters], [*[b" "] * 128, letters])
        browser = opened(record, " " * 128 + "a" * 128, width=360)
        assert browser.evaluate(FITS)
        browser.press("Tab")
        assert "and 120 more" in browser.evaluate(TIP)
        assert browser.evaluate(FITS)

    @pytest.mark.parametrize("dark", [False, True])
    def test_contrast(self, opened, dark):
        record, text = numerals()
        browser = opened(record, text + "\x04", dark=dark)
        browser.press("Tab")
        texts = browser.evaluate(TEXTS_ON_BACKGROUNDS)
        assert {"201", "1:3", "gap", "no token", "row of W", "0.9009"} <= {t for t, *_ in texts}
        assert unreadable(texts) == []


class TestDetails:
    def test_focus_shows_ids_bytes_and_the_row_of_w(self, opened):
        browser = opened(*numerals())
        assert browser.evaluate(TIP) is None
        browser.press("Tab")
        for _ in range(3):
            browser.press("ArrowRight")
        lines = browser.evaluate(TIP).splitlines()
        assert [" ".join(line.split()) for line in lines] == [
            "chunk: 1 student token, 3 teacher tokens",
            "student 201 id 103 32 30 31",
            "row of W 2U+202E 0.9009 201 0.0991",
            "teacher 2 id 102 32",
            "teacher 0 id 103 30",
            "teacher 1 id 104 31",
        ]

    def test_a_gap_of_a_control_token(self, opened):
        browser = opened(*numerals())
        browser.press("Tab")
        lines = browser.evaluate(TIP).splitlines()
        assert lines[0] == "gap"
        assert lines[1].split("\t") == ["student", "<|control|>", "id 100", "control token"]

    def test_keys(self, opened):
        browser = opened(*numerals())
        browser.press("Tab")
        browser.press("End")
        assert "teacher\t<|control|>\tid 109" in browser.evaluate(TIP)
        browser.press("ArrowLeft")
        assert "teacher\t<|control|>\tid 108" in browser.evaluate(TIP)
        browser.press("Home")
        assert "student\t<|control|>\tid 100" in browser.evaluate(TIP)
        browser.press("ArrowLeft")
        assert "student\t<|control|>\tid 100" in browser.evaluate(TIP)
        browser.press("Escape")
        assert browser.evaluate(TIP) is None

    def test_leaving_with_tab(self, opened):
        browser = opened(*numerals())
        browser.press("Tab")
        assert browser.evaluate(TIP)
        browser.press("Tab")
        assert browser.evaluate(TIP) is None

    def test_a_screen_reader_is_told(self, opened):
        browser = opened(*numerals())
        browser.press("Tab")
        focused = "document.activeElement.getAttribute('aria-describedby')"
        assert browser.evaluate(focused) == "tip"

    def test_hover(self, opened):
        browser = opened(*numerals())
        browser.mouse("mouseMoved", *centre(browser, 3))
        assert "id 103" in browser.evaluate(TIP)
        browser.mouse("mouseMoved", *centre(browser, 4))
        assert "id 104" in browser.evaluate(TIP)
        browser.mouse("mouseMoved", 1, 1)
        assert browser.evaluate(TIP) is None

    def test_tap_on_a_phone(self, opened):
        browser = opened(*numerals(), width=360)
        browser.evaluate("document.querySelector('#flow').scrollIntoView()")
        browser.tap(*centre(browser, 3))
        assert "id 103" in browser.evaluate(TIP)
        box = browser.evaluate("document.getElementById('tip').getBoundingClientRect().toJSON()")
        height = browser.evaluate("window.innerHeight")
        assert (box["left"], box["right"], box["bottom"]) == (0, 360, height)

    def test_w_need_not_be_known(self, opened):
        record, text = numerals()
        del record["student"]["projection"]
        browser = opened(record, text)
        browser.press("Tab")
        assert "row of W" not in browser.evaluate(TIP)

    def test_nothing_to_show(self, opened):
        browser = opened(finest([], []), "")
        browser.press("Tab")
        assert browser.complaints == []
