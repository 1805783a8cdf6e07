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


class TestPrepare:
    def test_text(self, text_config, tmp_path):
        options = ("--data.prepared", tmp_path / "rows")
        code, out, err = run("prepare", text_config, *options, "--workers", "1")
        assert code == 0
        shown = as_json(text_config, *options)["total"]
        assert out.splitlines() == [
            f"{tmp_path}/rows: 60 documents (0 cut) in {shown['counts']['rows']} rows, 1 shards",
            f"student: 1,631 tokens, {shown['shares']['utilisation']:.1%} of the places",
            f"tiny: 1,850 tokens, {shown['shares']['teachers']['tiny']['utilisation']:.1%} of the "
            "places",
        ]
        assert "1 shards, 60 documents, 1,631 tokens" in err
        assert tree(tmp_path / "rows") == {
            "manifest.json",
            "source-00-00000.arrayrecord",
            "source-00-00000.json",
        }

    def test_chat_in_processes_of_their_own(self, chat_config, tmp_path):
        options = ("--data.prepared", tmp_path / "rows", "--workers", "2")
        code, out, _ = run("prepare", chat_config, *options)
        assert code == 0
        assert f"{tmp_path}/rows: 7 documents (0 cut) in " in out
        assert "left out: 1 empty, the first: " in out
        manifest = json.loads((tmp_path / "rows" / "manifest.json").read_text())
        assert manifest["plan"]["chat_templates"].keys() == {
            "student",
            "teacher qwen",
            "teacher gemma",
        }
        assert manifest["dropped"] == {"empty": 1}
        # Again: what is there is kept.
        shard = tmp_path / "rows" / "source-00-00000.arrayrecord"
        before = shard.stat().st_mtime_ns
        assert run("prepare", chat_config, *options).out == out
        assert shard.stat().st_mtime_ns == before

    @pytest.mark.parametrize(
        ("options", "code", "told"),
        [
            ([], 2, "`data.prepared` must name the directory to prepare, got none"),
            (["--workers", "0"], 2, "`--workers` must be a number from 1, got '0'"),
            (
                ["--data.prepared", "{}/rows", "--data.on-error", "error", "--workers=1"],
                1,
                "chat.jsonl:8: ",
            ),
            (
                ["--data.prepared", "{}/rows", "--data.max-error-share", "0.1", "--workers=1"],
                1,
                "`data.max_error_share` must not be exceeded, but 1 of 8 records were bad",
            ),
        ],
    )
    def test_what_cannot_be_prepared_is_one_line(self, chat_config, tmp_path, options, code, told):
        options = [option.format(tmp_path) for option in options]
        found = run("prepare", chat_config, *options)
        assert (found.code, found.out) == (code, "")
        assert told in found.err.splitlines()[-1]
        assert not (tmp_path / "rows" / "manifest.json").exists()


class TestTrain:
    def test_another_plan_is_refused_with_what_differs(self, text_config, tmp_path):
        options = ("--data.prepared", tmp_path / "rows")
        assert run("prepare", text_config, *options, "--workers", "1").code == 0
        for command in ("train", "data"):
            code, message = complaint(
                command, text_config, *options, "--teachers.tiny.length", "80"
            )
            assert code == 1
            assert message == (
                f"data in {tmp_path}/rows was prepared for another run; prepare it again, in "
                "another directory: lengths.teachers.tiny: 96 -> 80"
            )

    def test_bad_records_are_counted_and_reported_up_to_a_share(self, directory, tmp_path):
        good = (directory / "train.jsonl").read_text()
        (tmp_path / "a.jsonl").write_text(f'{good}{{"text": 3}}\n{{"text": \n{{"text": 4}}\n')
        source = {"train": [{"kind": "jsonl", "path": f"{tmp_path}/a.jsonl"}], "on_error": "skip"}
        config = tiny_config(
            directory,
            data=source | {"max_error_share": 0.05},
            run_dir=str(tmp_path / "run"),
            optim={"steps": 1},
            evaluation={"sources": []},
        )
        path = written(config, tmp_path / "skip.yaml")
        told = (
            f"2 wrong type, the first: {tmp_path}/a.jsonl:61: `text` must be a string that is not "
            f"empty, got 3; 1 not JSON, the first: {tmp_path}/a.jsonl:62: must be JSON, got: "
        )
        code, message = complaint("train", path, "--data.max-error-share", "0.04")
        assert code == 1
        assert message.startswith(
            "`data.max_error_share` must not be exceeded, but 3 of 63 records were bad (more than "
            f"4.00%): {told}"
        )
        assert not (tmp_path / "run").exists()
        found = run("train", path)
        assert found.code == 0
        assert f"bad records left out: {told}" in " ".join(found.err.split())
        # Prepared, they are counted once and reported by every run.
        options = ("--data.prepared", tmp_path / "rows", "--run-dir", tmp_path / "again")
        assert run("prepare", path, *options, "--workers", "1").code == 0
        found = run("train", path, *options)
        assert f"bad records left out: {told}" in " ".join(found.err.split())
