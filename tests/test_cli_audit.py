"""`xtoken audit`, and what `xtoken project` passes on."""

import json

import pytest

from tests.commands import complaint, run, tree
from tests.tiny import tiny_tokenizer
from xtoken_jax.projection import (
    audit,
    build_projection,
    load_projection,
    projection_record,
    save_projection,
)
from xtoken_jax.text import ByteTokenizer


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Directories of a student that packs digits and of a teacher that does not."""
    directory = tmp_path_factory.mktemp("sides")
    return [
        tiny_tokenizer(directory / name, packs_digits=packs)
        for name, packs in (("student", True), ("teacher", False))
    ]


@pytest.fixture
def options(sides):
    return ["--student", sides[0], "--teacher", sides[1]]


@pytest.fixture
def loaded(sides):
    return [ByteTokenizer.load(side) for side in sides]


def test_json_is_the_record(options, loaded):
    code, out, err = run("audit", *options, "--json", "--threshold", "0.95")
    assert (code, err) == (0, "")
    assert json.loads(out) == audit(*loaded, build_projection(*loaded), threshold=0.95)
    assert json.loads(out)["recommendation"]["loss"] == "p_kl"


def test_a_given_projection_is_used(options, loaded, tmp_path):
    projection = build_projection(*loaded, max_pieces=1, long_pieces="drop")
    save_projection(projection, tmp_path / "w")
    _, out, _ = run("audit", *options, "--json", "--projection", tmp_path / "w")
    record = json.loads(out)
    assert record == audit(*loaded, projection)
    assert record != audit(*loaded, build_projection(*loaded))


def test_table(options):
    code, out, err = run("audit", *options)
    assert (code, err) == (0, "")
    assert "2-digit numerals" in out
    assert "P-KL" in out


def test_a_corpus_weighs_the_categories(options, tmp_path):
    (tmp_path / "corpus.txt").write_bytes(b"201\r\n7")
    _, out, _ = run("audit", *options, "--json", "--corpus", tmp_path / "corpus.txt")
    weighted = {n: c["weighted"] for n, c in json.loads(out)["categories"].items()}
    # "201", CR and LF one by one, "7".
    assert weighted["3-digit numerals"]["total"] == 0.25
    assert weighted["3-digit numerals"]["exact"] == 0
    assert weighted["1-digit numerals"]["exact"] == 0.25
    assert weighted["whitespace"]["total"] == 0.5


class TestPage:
    def test_rows_by_default(self, options, tmp_path):
        code, out, _ = run("audit", *options, "--json", "--html", tmp_path / "a" / "page.html")
        assert code == 0
        assert json.loads(out)["recommendation"]
        assert tree(tmp_path) == {"a", "a/page.html"}
        page = (tmp_path / "a" / "page.html").read_text(encoding="utf-8")
        assert page.lower().startswith("<!doctype html>")
        assert "0.9009" in page  # of the row of 201

    def test_chosen_rows(self, options, loaded, tmp_path, monkeypatch):
        seen = {}

        def audit_page(record, rows, *, title):
            seen.update(record=record, rows=rows, title=title)
            return "<p>é</p>"

        monkeypatch.setattr("xtoken_jax.report.audit_page", audit_page)
        _, out, _ = run(
            "audit", *options, "--json", "--html", tmp_path / "p", "--rows", "42", " and"
        )
        assert (tmp_path / "p").read_bytes() == "<p>é</p>".encode()
        assert seen["record"] == json.loads(out)
        expected = projection_record(build_projection(*loaded), *loaded, tokens=[b"42", b" and"])
        assert seen["rows"] == expected["examples"]
        assert seen["title"] == f"{loaded[0].name} from {loaded[1].name}"

    def test_a_row_that_the_student_lacks(self, options, tmp_path):
        code, message = complaint(
            "audit", *options, "--html", tmp_path / "page.html", "--rows", "zzzz"
        )
        assert code == 2
        assert "has no token 'zzzz'" in message
        assert tree(tmp_path) == set()

    def test_rows_without_a_page(self, options):
        code, message = complaint("audit", *options, "--rows", "201")
        assert code == 2
        assert "give `--html` too" in message


class TestBadInput:
    def test_a_corpus_that_is_not_there(self, options, tmp_path):
        code, message = complaint(
            "audit", *options, "--corpus", tmp_path / "no.txt", "--html", tmp_path / "page.html"
        )
        assert code == 2
        assert message == f"`--corpus` {tmp_path / 'no.txt'} does not exist"
        assert tree(tmp_path) == set()

    @pytest.mark.parametrize(
        ("content", "told"),
        [(b"ab\xff", "must be UTF-8, got a bad byte at 2"), (b"", "must have text to weigh by")],
    )
    def test_a_corpus_that_cannot_be_counted(self, options, tmp_path, content, told):
        (tmp_path / "corpus.txt").write_bytes(content)
        code, message = complaint(
            "audit", *options, "--corpus", tmp_path / "corpus.txt", "--html", tmp_path / "page.html"
        )
        assert code == 1
        assert message.startswith(f"{tmp_path / 'corpus.txt'} {told}")
        assert tree(tmp_path) == {"corpus.txt"}

    def test_a_directory_as_corpus(self, options, tmp_path):
        code, message = complaint("audit", *options, "--corpus", tmp_path)
        assert code == 1
        assert str(tmp_path) in message

    def test_a_projection_that_is_not_there(self, options, tmp_path):
        code, message = complaint("audit", *options, "--projection", tmp_path / "w")
        assert code == 2
        assert f"{tmp_path / 'w'} does not exist" in message

    def test_a_projection_of_others(self, options, loaded, tmp_path):
        save_projection(build_projection(loaded[1], loaded[0]), tmp_path / "w")
        code, message = complaint("audit", *options, "--projection", tmp_path / "w")
        assert code == 1
        assert "was built for another student tokenizer" in message

    def test_a_threshold_out_of_range(self, options):
        code, message = complaint("audit", *options, "--threshold", "1.5")
        assert code == 2
        assert message == "`threshold` must be in [0, 1], got 1.5"


def test_project_passes_every_option_on(options, tmp_path):
    given = {
        "beta": 0.5,
        "gamma": 0.2,
        "max_pieces": 3,
        "long_pieces": "drop",
        "canonicalization": "paper",
        "reverse": True,
        "special_similarity": True,
    }
    flags = []
    for name, value in given.items():
        flag = "--" + name.replace("_", "-")
        flags += [flag] if value is True else [flag, value]
    code, _, err = run("project", *options, *flags, "--out", tmp_path / "w")
    assert (code, err) == (0, "")
    assert load_projection(tmp_path / "w").options == given


def test_project_names_the_choices(options):
    code, message = complaint("project", *options, "--canonicalization", "nfc")
    assert code == 2
    assert "nfc" in message
    assert "paper" in message
