"""Training from prepared rows: the run that tokenises in memory, without its work."""

import dataclasses
import json

import numpy as np
import pytest

from tests.data.chat_sides import write_side
from tests.tiny import sentences, tiny_config
from xtoken_jax.config import DataConfig, SourceConfig
from xtoken_jax.data import Lengths, PreparedRows, Tally, prepare
from xtoken_jax.data import chat as chat_module
from xtoken_jax.data import examples as examples_module
from xtoken_jax.text import ByteTokenizer
from xtoken_jax.train import data as data_module
from xtoken_jax.train import setup
from xtoken_jax.train.data import load_plan, load_rows, prepare_rows, read_items
from xtoken_jax.train.metrics import TIMINGS
from xtoken_jax.train.run import train


def records(run_dir):
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]


def timings(run_dir):
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [[line[name] for name in TIMINGS] for line in lines]


def refused(*_, **__):
    raise AssertionError("this is done when data is prepared")


def test_the_metrics_are_those_of_the_run_in_memory_and_nothing_is_tokenised(tmp_path, monkeypatch):
    more = tmp_path / "more.jsonl"
    more.write_text("\n".join(json.dumps({"text": text}) for text in sentences(30, seed=5)))
    sources = [
        {"kind": "jsonl", "path": f"{tmp_path}/train.jsonl", "weight": 2.0},
        {"kind": "jsonl", "path": str(more), "weight": 1.0},
    ]
    config = tiny_config(tmp_path, data={"train": sources}, evaluation={"sources": []})
    in_memory = train(config).run_dir
    data = dataclasses.replace(config.data, prepared=str(tmp_path / "rows"))
    prepare_rows(
        data,
        *setup.tokenizer_references(config),
        setup.row_lengths(config),
        workers=1,
        progress=lambda shard: None,
    )
    for module, name in (
        (data_module, "pack_block"),
        (data_module, "read_source"),
        (examples_module, "align"),
        (chat_module, "align"),
        (ByteTokenizer, "encode"),
    ):
        monkeypatch.setattr(module, name, refused)
    prepared = train(dataclasses.replace(config, data=data, run_dir=str(tmp_path / "again")))
    assert records(prepared.run_dir) == records(in_memory)
    assert len(records(in_memory)) == config.optim.steps
    assert all(0.5 < record["utilisation"] <= 1 for record in records(in_memory))
    assert all(0 < seconds < 60 for _, seconds in timings(in_memory))


@pytest.mark.parametrize("block_bytes", [500, None])
def test_rows_are_the_same_of_texts_and_chats_and_several_teachers(
    tmp_path, monkeypatch, block_bytes
):
    for family in ("llama3", "qwen3", "gemma3"):
        write_side(tmp_path / family, family)
    chats = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": str(i)}]}
        for i, text in enumerate(sentences(20))
    ]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, chats)))
    (tmp_path / "text.txt").write_text(" ".join(sentences(9, seed=2)))
    data = DataConfig(
        train=(
            SourceConfig(kind="jsonl", path=f"{tmp_path}/chat.jsonl", format="messages"),
            SourceConfig(kind="text", path=f"{tmp_path}/*.txt"),
        )
    )
    teachers = {name: str(tmp_path / name) for name in ("qwen3", "gemma3")}
    lengths = Lengths(256, {"qwen3": 256, "gemma3": 192})
    plan = load_plan(data, str(tmp_path / "llama3"), teachers, lengths)
    size = {} if block_bytes is None else {"block_bytes": block_bytes}
    if size:
        real = data_module.document_blocks
        monkeypatch.setattr(data_module, "document_blocks", lambda *a: real(*a, **size))
    in_memory = load_rows(data, plan, Tally())
    sources = [lambda source=source: read_items(source) for source in data.train]
    prepare(tmp_path / "rows", sources, lambda: plan, Tally(), **size)
    rows = PreparedRows(tmp_path / "rows")
    assert len(rows.manifest["shards"]) == (2 if block_bytes is None else 3)
    assert rows.num_rows == list(in_memory.num_rows)
    for found, expected in zip(
        rows.read(range(len(rows))), in_memory.read(range(len(in_memory))), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
