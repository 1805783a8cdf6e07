"""`xtoken data` and `xtoken prepare`: what a config trains on."""

import json
from itertools import islice

import pytest
import yaml

from tests.commands import complaint, run, tree
from tests.data.chat_sides import write_side
from tests.tiny import tiny_config
from xtoken_jax.config import check_config, to_dict
from xtoken_jax.data import row_batches
from xtoken_jax.train import setup

TURNS = [
    {"role": "user", "content": "What is 201 + 4?"},
    {"role": "assistant", "content": "It is 205."},
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The files of a tiny experiment, which no test may change."""
    directory = tmp_path_factory.mktemp("data")
    tiny_config(directory)
    for family in ("llama3", "qwen3", "gemma3"):
        write_side(directory / family, family)
    records = [json.dumps({"messages": TURNS}) for _ in range(7)]
    (directory / "chat.jsonl").write_text("\n".join([*records, '{"messages": []}']))
    return directory


def written(config, path):
    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
    return path


@pytest.fixture
def text_config(directory, tmp_path):
    """The tiny experiment's file, to be prepared in `tmp_path / "rows"`."""
    return written(tiny_config(directory), tmp_path / "text.yaml")


@pytest.fixture
def chat_config(directory, tmp_path):
    """Conversations, one of them bad, and two teachers with templates of their own."""
    names = {"qwen": "qwen3", "gemma": "gemma3"}
    content = {
        "run_dir": str(tmp_path / "run"),
        "student": {"model": str(directory / "llama3")},
        "teachers": {
            name: {"model": str(directory / family), "length": 160}
            for name, family in names.items()
        },
        "data": {
            "train": [
                {"kind": "jsonl", "path": str(directory / "chat.jsonl"), "format": "messages"}
            ],
            "batch_size": 2,
            "student_length": 160,
            "on_error": "skip",
            "max_error_share": 0.2,
        },
    }
    return written(check_config(content, name="chat"), tmp_path / "chat.yaml")


def as_json(*arguments):
    code, out, err = run("data", *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


class TestData:
    def test_json_holds_the_first_batches_of_the_run(self, directory, text_config):
        config = tiny_config(directory)
        rows, _ = setup.load_rows(config, setup.load_tokenizers(config))
        batches = list(islice(row_batches(rows, batch_size=4, seed=config.seed), 2))
        found = as_json(text_config, "--batches", "2")
        for number, batch in enumerate(batches):
            shown = [d for d in found["documents"] if d["batch"] == number]
            assert [document["record"] for document in shown] == batch.records
            ids = [id for document in shown for id in document["student"]["ids"]]
            assert ids == batch.student["ids_BS"][batch.student["segment_ids_BS"] > 0].tolist()
        assert found["total"]["counts"]["documents"] == 60
        assert found["sources"][0]["source"] == f"jsonl {directory}/train.jsonl"
        assert found["lengths"] == {"student": 64, "teachers": {"tiny": 96}}
        assert found["dropped"] == {}
        other = as_json(text_config, "--seed", "1")
        assert [d["record"] for d in other["documents"]] != batches[0].records

    def test_text(self, text_config, monkeypatch):
        monkeypatch.setenv("COLUMNS", "160")
        code, out, err = run("data", text_config)
        assert (code, err) == (0, "")
        assert out.startswith("batch 0, row 0: ")
        assert "│ gap          │ <|begin_of_text|> " in out
        assert "│ scored       │ ·has│" in out
        assert out.index("train.jsonl:") < out.index("│ of which cut")
        assert "│ tiny tokens in no chunk " in out
        code, out, _ = run("data", text_config, "--batches", "0")
        assert code == 0
        assert "batch 0" not in out

    def test_chat_data_of_several_teachers_and_what_was_left_out(self, chat_config, directory):
        found = as_json(chat_config)
        assert found["dropped"] == {"empty": 1}
        assert found["first_dropped"]["empty"].startswith(f"{directory}/chat.jsonl:8: `messages`")
        assert found["total"]["counts"]["documents"] == 7
        document = found["documents"][0]
        own = document["student"]
        learnt = [p for p, counts in zip(own["pieces"], own["learnt"], strict=True) if counts]
        assert "".join(learnt) == "It is 205.<|eot_id|>"
        for name, end in (("qwen", "<|im_end|>"), ("gemma", "<end_of_turn>")):
            side = document["teachers"][name]
            spans = [chunk for chunk, ok in zip(side["chunks"], side["scored"], strict=True) if ok]
            scored = ["".join(side["pieces"][c:d]) for _, _, c, d in spans]
            assert "".join(scored) == f"It is 205.{end}"
        code, out, err = run("data", chat_config)
        assert (code, err) == (0, "")
        assert "left out: 1 empty, the first:" in out

    def test_page(self, chat_config, tmp_path):
        page = tmp_path / "pages" / "data.html"
        code, out, err = run("data", chat_config, "--html", page)
        assert (code, err) == (0, "")
        assert "page: " in out
        assert "batch 0" not in out
        assert tree(page.parent) == {"data.html"}
        content = page.read_text(encoding="utf-8")
        assert '<bdi class="learnt">' in content
        assert "<h3>qwen</h3>" in content
        assert "1 empty, the first:" in content

    def test_prepared_data_is_shown_as_it_is_in_memory(self, chat_config, tmp_path):
        in_memory = as_json(chat_config)
        options = ("--data.prepared", tmp_path / "rows")
        assert run("prepare", chat_config, *options, "--workers", "1").code == 0
        prepared = as_json(chat_config, *options)
        for found in (in_memory, prepared):  # shards are packed in another order
            found["documents"] = found["documents"][0]["student"]
        assert prepared == in_memory

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["--batches", "x"], "`--batches` must be a number from 0, got 'x'"),
            (["--html"], "`--html` must have a value, got none"),
            (["--data.prepared", "/no/rows"], "`xtoken prepare` has finished, but there is no"),
            (["--data.on-error", "error"], "chat.jsonl:8: `messages` must not be empty"),
        ],
    )
    def test_bad_usage_is_one_line(self, chat_config, tmp_path, options, told):
        before = tree(tmp_path)
        code, message = complaint("data", chat_config, *options)
        assert code == (1 if "error" in options else 2)
        assert told in message
        assert tree(tmp_path) == before
