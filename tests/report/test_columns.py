from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.report.records import alignment, finest
from xtoken_jax.report.columns import columns, locate


def shown(record, text):
    """Kind, numbers of tokens on both sides, and text of each column."""
    return [
        (
            column.kind,
            column.student[1] - column.student[0],
            column.teacher[1] - column.teacher[0],
            column.text,
        )
        for column in columns(record, text)
    ]


class TestColumns:
    def test_chunks_over_their_text(self):
        record = finest([b"201", b" apples"], [b"2", b"0", b"1", b" apples"])
        assert shown(record, "201 apples") == [("chunk", 1, 3, "201"), ("chunk", 1, 1, " apples")]

    def test_a_character_belongs_to_the_column_in_which_it_begins(self):
        apple = "🍎".encode()
        tokens = [apple[:2], apple[2:3], apple[3:] + b"!"]
        found = columns(finest(tokens, tokens), "🍎!")
        assert [column.text for column in found] == ["🍎", "", "!"]
        assert [column.goes_on for column in found] == [False, True, False]

    def test_a_control_token_stands_over_no_text(self):
        record = alignment([b"", b"a", b""], [b"a", b""], [(1, 2, 0, 1), (2, 3, 1, 2)])
        found = columns(record, "a")
        assert [column.kind for column in found] == ["gap", "chunk", "chunk"]
        assert [column.text for column in found] == ["", "a", ""]
        assert not any(column.goes_on for column in found)

    def test_gaps_are_cut_where_both_sides_reach_the_same_place(self):
        record = alignment([b"ab", b"cd", b"e"], [b"a", b"bcd", b"e"], [])
        assert shown(record, "abcde") == [("gap", 2, 2, "abcd"), ("gap", 1, 1, "e")]

    def test_unpaired_control_tokens_are_gaps_of_their_own(self):
        record = alignment([b"", b"a"], [b"", b"", b"a"], [(1, 2, 2, 3)])
        assert shown(record, "a")[:3] == [("gap", 1, 0, ""), ("gap", 0, 1, ""), ("gap", 0, 1, "")]

    def test_a_side_that_is_cut_short(self):
        record = alignment([b"a", b"b", b"c"], [b"a"], [(0, 1, 0, 1)])
        assert shown(record, "abc") == [
            ("chunk", 1, 1, "a"),
            ("gap", 1, 0, "b"),
            ("gap", 1, 0, "c"),
        ]

    def test_another_normaliser(self):
        student = [b"of", " ﬁn".encode(), b"ances and more"]
        teacher = [b"of", b" f", b"in", b"ances and more"]
        record = alignment(student, teacher, [(0, 1, 0, 1), (2, 3, 3, 4)])
        assert shown(record, "of ﬁnances and more") == [
            ("chunk", 1, 1, "of"),
            ("gap", 1, 2, " ﬁn"),
            ("chunk", 1, 1, "ances and more"),
        ]

    def test_a_gap_takes_no_text_of_the_next_chunk(self):
        # The teacher's "2" is too short to be found again between two differences.
        student = [b"1", b"x", b"2", b"y", b"6789"]
        teacher = [b"1", b"Q", b"2", b"W", b"6789"]
        record = alignment(student, teacher, [(0, 1, 0, 1), (2, 3, 2, 3), (4, 5, 4, 5)])
        assert [text for *_, text in shown(record, "1x2y6789")] == ["1", "x", "2", "y", "6789"]

    def test_text_that_both_sides_drop(self):
        record = alignment([b"a", b"b"], [b"a", b"b"], [(0, 1, 0, 1), (1, 2, 1, 2)])
        assert shown(record, "a\x04b\x05") == [
            ("chunk", 1, 1, "a"),
            ("untokenised", 0, 0, "\x04"),
            ("chunk", 1, 1, "b"),
            ("untokenised", 0, 0, "\x05"),
        ]

    def test_text_that_one_side_drops(self):
        record = alignment([b"a", b"\x04", b"bcd"], [b"a", b"bcd"], [(0, 1, 0, 1), (2, 3, 1, 2)])
        assert shown(record, "a\x04bcd")[1] == ("gap", 1, 0, "\x04")

    def test_the_space_before_a_text_is_not_in_it(self):
        record = alignment([b" apples"], [b" ", b"apples"], [(0, 1, 1, 2)])
        text = "apples and apples and apples"
        assert shown(record, text)[:2] == [("gap", 0, 1, ""), ("chunk", 1, 1, "apples")]

    def test_nothing(self):
        assert columns(finest([], []), "") == []


class TestLocate:
    def test_places_of_tokens(self):
        assert locate(b"abc", [b"", b"ab", b"", b"c"]) == [(0, 0), (0, 2), (2, 2), (2, 3)]

    def test_tokens_that_do_not_spell_the_text_share_it(self):
        content, tokens = b"x\xc3\xa9 and so on", [b"x", b"e", b"\xcc\x81", b" and so on"]
        assert locate(content, tokens) == [(0, 1), (1, 3), (1, 3), (3, 13)]

    def test_leaving_out_less_comes_first(self):
        tokens = [b"W", b"two5", b"one5"]
        assert locate(b"Qone5two5one5", tokens) == [(0, 5), (5, 9), (9, 13)]

    def test_other_bytes_at_the_end(self):
        assert locate(b"ab\xc3\xa9", [b"ab", b"e"]) == [(0, 2), (2, 4)]

    def test_nothing_in_common(self):
        tokens = [b"zz"] * 500
        assert all(0 <= start <= end <= 500 for start, end in locate(b"a" * 500, tokens))


def cut(content: bytes, marks) -> list[bytes]:
    places = [0, *sorted({mark % (len(content) + 1) for mark in marks}), len(content)]
    return [content[x:y] for x, y in pairwise(places) if x < y]


MARKS = st.lists(st.integers(0, 1000), max_size=20)


def assert_whole(record, text):
    """Every character and every token is in exactly one column, in order."""
    found = columns(record, text)
    assert "".join(column.text for column in found) == text
    for name in ("student", "teacher"):
        spans = [getattr(column, name) for column in found]
        inside = [index for first, last in spans for index in range(first, last)]
        assert inside == list(range(len(record[name]["ids"])))


class TestWhole:
    @given(st.text(), MARKS, MARKS)
    def test_the_same_bytes_on_both_sides(self, text, student, teacher):
        content = text.encode()
        record = finest(cut(content, student), cut(content, teacher))
        assert_whole(record, text)
        assert [column.kind for column in columns(record, text)] == ["chunk"] * len(
            record["chunks"]
        )

    @given(st.text(), st.text(), MARKS, MARKS)
    def test_whatever_the_tokens_spell(self, text, other, student, teacher):
        tokens = cut(text.encode(), student), cut(other.encode(), teacher)
        assert_whole(alignment(*tokens, []), text)
        assert_whole(alignment(*tokens, []), other)
