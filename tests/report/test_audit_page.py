import html
import re
from itertools import pairwise

import pytest

from tests.report.contrast import TEXTS_ON_BACKGROUNDS, contrast, luminance, unreadable
from tests.report.records import AUDIT
from xtoken_jax.report import audit_page
from xtoken_jax.report.audit_page import counts_of, shade

ROWS = [
    {"token": "201", "pieces": ["2", "0", "1"], "weights": [0.9009, 0.0901, 0.0090]},
    {"token": "<script>\u202e", "pieces": ["0", "</td>"], "weights": [0.95, 0.05]},
]


def channels(colour: str) -> bytes:
    return bytes.fromhex(colour.removeprefix("#"))


def text_of(content: str) -> str:
    body = content.partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


class TestCounts:
    def test_what_is_left_is_empty(self):
        counts = counts_of(AUDIT["categories"]["3-digit numerals"])
        assert counts == {"exact": 0, "hybrid": 20, "projected": 970, "empty": 10}

    def test_rounding_leaves_nothing(self):
        assert counts_of(AUDIT["categories"]["3-digit numerals"]["weighted"])["empty"] == 0


class TestMarkup:
    def test_the_recommendation_comes_first(self):
        words = text_of(audit_page(AUDIT, ROWS, title="llama3 to smollm2"))
        assert words.startswith(
            "llama3 to smollm2 Use P-KL "
            "The exact common set holds only 0 of 1000 <i>[b] numerals. overlap, by bytes 79.98%"
        )

    def test_every_bar_is_told_in_numbers(self):
        words = text_of(audit_page(AUDIT, ROWS, title="audit"))
        assert (
            "3-digit numerals 1,000 tokens added by H-KL 20 (2.0%) · only through W 970 (97.0%) · "
            "not at all 10 (1.0%) by frequency, 7.0% of the corpus: added by H-KL 14.3% · "
            "only through W 85.7%" in words
        )
        assert "ASCII letters 84,000 tokens exact match 84,000 (100%)" in words
        assert "4+-digit" not in words  # there are none
        assert "5+ 4,800 4,700" in words

    def test_bars_are_as_long_as_their_numbers(self):
        content = audit_page(AUDIT, ROWS, title="audit")
        parts = re.findall(r'<span class="(\w+)" style="flex-grow:([\d.]+)">', content)
        assert parts[:5] == [
            ("hybrid", "2"),
            ("projected", "97"),
            ("empty", "1"),
            ("hybrid", "14.29"),
            ("projected", "85.71"),
        ]
        widths = re.findall(r'style="width:([\d.]+)%"', content)
        assert [float(width) for width in widths[:2]] == [100.0, 98.2]

    def test_no_rows_no_heat_map(self):
        assert "Rows of W" not in audit_page(AUDIT, [], title="audit")
        assert "<script" not in audit_page(AUDIT, [], title="audit")


class TestShade:
    def test_darker_is_larger(self):
        weights = [10 ** (-exponent / 8) for exponent in range(33)]
        depths = [luminance(*channels(shade(weight)[0])) for weight in weights]
        assert depths == sorted(depths)
        assert len(set(depths)) == 33

    def test_as_far_from_each_factor_of_ten_to_the_next(self):
        reds = [channels(shade(10.0**-exponent)[0])[0] for exponent in range(5)]
        steps = [after - before for before, after in pairwise(reds)]
        assert max(steps) - min(steps) <= 1 < steps[0]

    def test_the_number_on_it_can_be_read(self):
        for exponent in range(0, 4001, 10):
            assert contrast(*map(channels, shade(10 ** (-exponent / 1000)))) >= 4.5

    def test_weights_below_the_scale(self):
        assert shade(0.0) == shade(1e-9) == shade(1e-4)


class TestInBrowser:
    @pytest.fixture
    def opened(self, browser, tmp_path):
        def open_page(**window):
            path = tmp_path / "page.html"
            path.write_text(audit_page(AUDIT, ROWS * 4, title="audit"), encoding="utf-8")
            browser.open(path, **window)
            return browser

        return open_page

    def test_the_heat_map(self, opened):
        rows = "[...document.querySelectorAll('.wide tr')].map((row) => row.innerText.split('\\t'))"
        assert opened().evaluate(rows)[:3] == [
            ["", "2", "0", "1", "</td>"],
            ["201", "0.9009", "0.0901", "0.0090", ""],
            ["<script>U+202E", "", "0.9500", "", "0.0500"],
        ]

    def test_it_fits_a_phone(self, opened):
        browser = opened(width=360)
        assert browser.evaluate("document.documentElement.scrollWidth") == 360

    @pytest.mark.parametrize("dark", [False, True])
    def test_contrast(self, opened, dark):
        texts = opened(dark=dark).evaluate(TEXTS_ON_BACKGROUNDS)
        assert {"Use P-KL", "0.0090", "valid UTF-8"} <= {text for text, *_ in texts}
        assert unreadable(texts) == []

    def test_no_complaints_and_no_requests(self, opened):
        browser = opened()
        assert browser.complaints == []
        assert len(browser.requests) == 1
