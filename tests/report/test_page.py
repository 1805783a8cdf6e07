import json

import pytest

from xtoken_jax.report.page import (
    data_block,
    facts,
    page,
    share,
    table,
    text_html,
    token_html,
    visible,
)


class TestVisible:
    @pytest.mark.parametrize(
        ("text", "seen"),
        [
            (" a\tb\n", "·a→b↵"),
            ("a\x00b", "aU+0000b"),
            ("\u202eabc\u2066", "U+202EabcU+2066"),  # bidi controls
            ("\u200b\u00ad\ufeff", "U+200BU+00ADU+FEFF"),  # drawn as nothing
            ("\u00a0\u3000\u2028", "U+00A0U+3000U+2028"),  # spaces that are not a space
            ("\u2764\ufe0f\u3164", "\u2764U+FE0FU+3164"),  # printable to Python, yet not seen
            ("\U000e0041\ud800", "U+E0041U+D800"),
            ("\u0301e", "◌\u0301e"),
            ("e\u0301", "e\u0301"),
            ("", ""),
        ],
    )
    def test_what_stands_for_what_is_not_seen(self, text, seen):
        assert visible(text) == seen

    def test_signs_of_a_token_are_set_apart_from_its_characters(self):
        assert token_html(" ·<") == "<bdi><i>·</i>·&lt;</bdi>"
        assert token_html("\u202e\u0301") == "<bdi><i>U+202E</i>\u0301</bdi>"

    def test_text_keeps_its_white_space(self):
        assert text_html(" a\n") == ' a<i class="newline">\n</i>'
        assert text_html("\t\r\u202e&") == '<i class="tab">\t</i><i>U+000D</i><i>U+202E</i>&amp;'


class TestPage:
    def test_title_is_text(self):
        content = page("</title><script>&\u202e", "", styles=[])
        assert content.count("&lt;/title&gt;&lt;script&gt;&amp;U+202E") == 2
        assert "<script" not in content

    def test_it_allows_only_its_own_script(self):
        assert "script-src 'none'" in page("a", "", styles=[])
        content = page("a", "", styles=["alignment.css"], script="alignment.js")
        assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-" in content

    def test_it_names_no_other_place(self):
        content = page("a", "", styles=["alignment.css", "audit.css"], script="alignment.js")
        assert not [word for word in ("http:", "https:", "url(", "@import") if word in content]

    def test_data_cannot_end_its_block(self):
        content = {"piece": "</script><!--\u202e\u2028"}
        block = data_block("tokens", content)
        assert block.count("<") == 2
        assert block.isascii()
        assert json.loads(block.partition(">")[2].removesuffix("</script>")) == content


class TestNumbers:
    @pytest.mark.parametrize(
        ("part", "whole", "text"),
        [
            (0, 0, "0%"),
            (0, 9, "0%"),
            (9, 9, "100%"),
            (1, 3, "33.3%"),
            (1, 128256, "<0.1%"),
            (128255, 128256, ">99.9%"),
            (0.25, 0.5, "50.0%"),
        ],
    )
    def test_share(self, part, whole, text):
        assert share(part, whole) == text

    def test_facts_are_escaped(self):
        assert facts({"<a>": "&"}) == (
            '<dl class="facts"><div><dt>&lt;a&gt;</dt><dd>&amp;</dd></div></dl>'
        )


class TestTable:
    def test_headings_say_what_they_are_of(self):
        content = table([["", "<a>"], ["\u202eb", "1"]])
        assert '<th scope="col"></th><th scope="col">&lt;a&gt;</th>' in content
        assert '<tr><th scope="row">U+202Eb</th><td>1</td></tr>' in content

    def test_without_rows(self):
        assert "<tbody></tbody>" in table([["a", "b"]])
