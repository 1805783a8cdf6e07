"""Every kind of bad record from its file to the end: named, or counted and judged by its share."""

import gzip
import json
from dataclasses import dataclass

import numpy as np
import pytest

from tests.data.chat_sides import write_side
from tests.tiny import sentences
from xtoken_jax.config import DataConfig, SourceConfig
from xtoken_jax.data import Lengths, Tally, source_counts
from xtoken_jax.errors import XTokenError
from xtoken_jax.train.data import load_plan, load_rows, prepare_rows

LENGTHS = Lengths(120, {"gemma": 160})
USER, ASSISTANT = ({"role": role, "content": "201"} for role in ("user", "assistant"))
LONG = "201 apples and " * 40


def line(**content):
    return json.dumps(content).encode()


@dataclass(frozen=True)
class Bad:
    """A line that stands as the fifth of nine good ones, and what is said of it."""

    kind: str
    told: str
    content: bytes
    format: str = "text"


CASES = {
    "not UTF-8": Bad("not UTF-8", "must be UTF-8, got a bad byte at 10", b'{"text": "\xff"}'),
    "truncated JSON": Bad("not JSON", "must be JSON", b'{"text": "a'),
    "missing field": Bad("missing field", "`text` must be a string", line(body="a")),
    "wrong type": Bad("wrong type", "`text` must be a string", line(text=["a"])),
    "no object": Bad("wrong type", "must be an object", b"3"),
    "empty record": Bad("empty", "`text` must be a string that is not empty", line(text="")),
    "larger than the sequence": Bad(
        "too long",
        "what is to be learnt must fit in 120 student tokens and 160 tokens of gemma",
        line(prompt="a", completion=LONG),
        "completion",
    ),
    "missing messages": Bad("missing field", "`messages` must be a list", line(), "messages"),
    "unknown role": Bad(
        "unknown role",
        "message 1: `role` must be one of system, user, assistant, tool, got 'robot'",
        line(messages=[USER, {**ASSISTANT, "role": "robot"}]),
        "messages",
    ),
    "template that fails": Bad(
        "template failed",
        "the chat template of ",
        line(messages=[USER, USER, ASSISTANT]),  # Gemma's turns must alternate
        "messages",
    ),
    "control token": Bad(
        "control token in a message",
        "message 0 must not spell <|eot_id|> of ",
        line(messages=[{**USER, "content": "<|eot_id|>"}, ASSISTANT]),
        "messages",
    ),
    "nothing to learn": Bad(
        "nothing to learn", "no token of it is to be learnt", line(messages=[USER]), "messages"
    ),
}


def good_lines(format):
    texts = sentences(9)
    if format == "text":
        return [line(text=text) for text in texts]
    if format == "completion":
        return [line(prompt=text[:20], completion=text[20:]) for text in texts]
    return [line(messages=[USER, {**ASSISTANT, "content": text}]) for text in texts]


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sides")
    return {name: str(write_side(directory / name, name)) for name in ("llama3", "gemma3")}


def written(directory, bad):
    lines = good_lines(bad.format)
    (directory / "a.jsonl").write_bytes(b"\n".join([*lines[:4], bad.content, *lines[4:]]))
    return directory / "a.jsonl"


def rows_of(path, format, sides, way, tmp_path, **options):
    """The rows of a file, in memory or prepared, and what became of bad records."""
    prepared = str(tmp_path / "rows") if way == "prepared" else None
    source = SourceConfig(kind="jsonl", path=str(path), format=format)
    data = DataConfig(train=(source,), prepared=prepared, **options)
    names = sides["llama3"], {"gemma": sides["gemma3"]}
    if prepared is not None:
        prepare_rows(data, *names, LENGTHS, workers=1, progress=lambda shard: None)
    tally = Tally(on_error=data.on_error, max_error_share=data.max_error_share)
    return load_rows(data, load_plan(data, *names, LENGTHS), tally), tally


@pytest.mark.parametrize("way", ["memory", "prepared"])
@pytest.mark.parametrize("name", CASES)
class TestOneBadOfTen:
    def test_is_an_error_with_its_file_and_number(self, sides, tmp_path, name, way):
        bad = CASES[name]
        path = written(tmp_path, bad)
        with pytest.raises(XTokenError) as error:
            rows_of(path, bad.format, sides, way, tmp_path)
        assert str(error.value).startswith(f"{path}:5: {bad.told}")
        assert not (tmp_path / "rows" / "manifest.json").exists()

    def test_is_counted_and_the_others_stay(self, sides, tmp_path, name, way):
        bad = CASES[name]
        path = written(tmp_path, bad)
        options = {"on_error": "skip", "max_error_share": 0.1}
        rows, tally = rows_of(path, bad.format, sides, way, tmp_path, **options)
        assert tally.dropped == {bad.kind: 1}
        assert str(tally).startswith(f"1 {bad.kind}, the first: {path}:5: {bad.told}")
        _, records = rows.read(range(len(rows)))
        assert sorted(records) == [f"{path}:{number}" for number in (1, 10, 2, 3, 4, 6, 7, 8, 9)]

    def test_is_too_many_above_the_share(self, sides, tmp_path, name, way):
        bad = CASES[name]
        path = written(tmp_path, bad)
        options = {"on_error": "skip", "max_error_share": 0.099}
        told = rf"1 of 10 records were bad \(more than 9\.90%\): 1 {bad.kind}, the first: {path}:5"
        with pytest.raises(XTokenError, match=told):
            rows_of(path, bad.format, sides, way, tmp_path, **options)


@pytest.mark.parametrize("way", ["memory", "prepared"])
def test_a_truncated_gzip_is_named_where_it_ends_and_what_came_before_is_used(sides, tmp_path, way):
    draw = np.random.default_rng(0)
    lines = [line(text=f"{number} {draw.bytes(40).hex()}") for number in range(300)]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines))[:-2000])
    with pytest.raises(XTokenError, match=rf"{path}:\d+: must be a whole file"):
        rows_of(path, "text", sides, way, tmp_path)
    options = {"on_error": "skip", "max_error_share": 0.1}
    rows, tally = rows_of(path, "text", sides, way, tmp_path, **options)
    assert tally.dropped == {"damaged file": 1}
    _, records = rows.read(range(len(rows)))
    assert 100 < len(records) < 300
    assert f"{path}:{len(records) + 1}: must be a whole file" in str(tally)


@pytest.mark.parametrize("way", ["memory", "prepared"])
def test_a_text_larger_than_the_sequence_is_cut_and_counted(sides, tmp_path, way):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([*good_lines("text"), line(text=LONG)]))
    rows, tally = rows_of(path, "text", sides, way, tmp_path)
    (counts,) = source_counts(rows)
    assert (counts.documents, counts.cut) == (10, 1)
    assert not tally.dropped
