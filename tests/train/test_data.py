"""What of a config decides which rows it trains on."""

import dataclasses
from datetime import date

import pytest

from tests.data.chat_sides import write_side
from xtoken_jax.config import DataConfig, SourceConfig
from xtoken_jax.data import Lengths, check_plan
from xtoken_jax.errors import XTokenError
from xtoken_jax.train.data import load_plan

CHATS = DataConfig(train=(SourceConfig(kind="jsonl", path="a.jsonl", format="messages"),))


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sides")
    return {name: str(write_side(directory / name, name)) for name in ("llama3", "qwen3")}


def described(data, sides, teacher="qwen3", student="llama3"):
    lengths = Lengths(64, {"one": 64})
    return load_plan(data, sides[student], {"one": sides[teacher]}, lengths).description


def test_another_day_is_told_where_a_template_writes_it(sides):
    later = dataclasses.replace(CHATS, chat_date=date(2026, 11, 3))
    with pytest.raises(XTokenError) as error:
        check_plan({"plan": described(CHATS, sides)}, described(later, sides), "rows")
    told = str(error.value).partition("directory: ")[2]
    assert told.startswith("chat_date: 2024-07-26 -> 2026-11-03; chat_templates.student: ")
    assert "teacher one" not in told
    # And makes no difference where none does.
    sides = {"student": "qwen3", "teacher": "qwen3", "sides": sides}
    check_plan({"plan": described(CHATS, **sides)}, described(later, **sides), "rows")
