import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.commands import complaint, complaint_of, run, run_process, tree
from tests.tiny import tiny_config, tiny_tokenizer

COMMANDS = (
    "assets",
    "align",
    "project",
    "audit",
    "init",
    "eval",
    "generate",
    "report",
    "data",
    "prepare",
    "train",
    "plan",
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The files of a tiny experiment, which no test may change."""
    directory = tmp_path_factory.mktemp("cli")
    tiny_config(directory)
    return directory


@pytest.fixture
def student(directory):
    return directory / "student-model"


@pytest.fixture
def teacher(directory):
    return directory / "teacher-model"


class TestUsage:
    @pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
    def test_the_commands_are_listed(self, arguments):
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        assert all(f"  {command} " in out for command in COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_help(self, command):
        code, out, err = run(command, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"usage: xtoken {command}")
        assert "--" in out

    def test_train_lists_every_field(self):
        _, out, _ = run("train", "--help")
        for field in ("--resume", "--student.layers", "--optim.learning-rate", "--mesh.fsdp"):
            assert field in out

    def test_unknown_command(self):
        code, message = complaint("distil")
        assert code == 2
        assert message == "unknown command `distil`; known are " + ", ".join(COMMANDS)

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["align", "--studnt", "x"], "Unrecognized options: --studnt x"),
            (["align", "--student", "x"], "Missing from xtoken align: --teacher STR"),
            (["eval", "--model", "m", "--text", "t", "--length", "long"], "'long'"),
            (["eval", "--model", "m", "--text", "t", "--length", "0"], "at least 1, got 0"),
            (["eval", "--model", "m"], "give `--text`, `--questions` or both"),
            (["eval", "--model", "m", "--questions", "-1"], "at least 0, got -1"),
            (["eval", "--model", "m", "--text", "t", "--samples", "f"], "needs `--questions`"),
            (["generate", "--model", "m"], "Missing from xtoken generate: --prompt"),
            (["generate", "--model", "m", "--prompt", "a", "--top-p", "0"], "within (0, 1], got 0"),
            (["generate", "--model", "m", "--prompt", "a", "--system", "b"], "needs `--chat`"),
            (["align", "--student", "s", "--teacher", "t"], "either as `--text` or as `--file`"),
            (["report"], "needs the directory of a run"),
            (["train"], "needs a config file"),
            (["plan"], "needs a config file"),
            (["plan", "configs/quickstart.yaml", "--json"], "needs `--topology`, such as v5e:4x4"),
            (["plan", "configs/quickstart.yaml", "--topology", "x"], "must be CHIP:SHAPE"),
            (["plan", "configs/quickstart.yaml", "--topology=cpu", "--mesh.x", "2"], "--mesh.x"),
        ],
    )
    def test_bad_options_are_one_line(self, arguments, told):
        code, message = complaint(*arguments)
        assert code == 2
        assert told in message
        assert "│" not in message
        assert "Argument helptext" not in message
        assert "──" not in message


class TestAssets:
    def test_json(self):
        code, out, err = run("assets", "--json")
        assert (code, err) == (0, "")
        rows = {row["name"]: row for row in json.loads(out)}
        assert {"llama3", "llama4", "qwen3", "tekken", "smollm2-135m"} <= rows.keys()
        assert rows["llama3"]["licence"] == "Llama 3 Community License"
        assert rows["llama3"]["download_bytes"] > 1e6

    def test_table(self, monkeypatch, tmp_path):
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("XTOKEN_CACHE", str(tmp_path))
        _, out, _ = run("assets")
        assert "asset:llama3" in out
        assert "not fetched" in out

    def test_unknown_name(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XTOKEN_CACHE", str(tmp_path))
        code, message = complaint("assets", "--fetch", "llama33")
        assert code == 2
        assert "llama33" in message
        assert "llama3" in message.replace("llama33", "")
        assert tree(tmp_path) == set()


class TestNames:
    """A model or tokenizer that is not there, by every command that takes one."""

    @pytest.mark.parametrize(
        ("reference", "code", "told"),
        [
            ("asset:smollm3", 2, "smollm3"),
            ("/no/such/directory", 2, "existing directory, asset:NAME, or a hub id"),
            ("", 2, "existing directory, asset:NAME, or a hub id"),
        ],
    )
    def test_no_such_thing(self, student, reference, code, told):
        for arguments in (
            ["align", "--student", student, "--teacher", reference, "--text", "a"],
            ["project", "--student", reference, "--teacher", student],
            ["eval", "--model", reference, "--text", f"{student.parent}/heldout.txt"],
            ["generate", "--model", reference, "--prompt", "a"],
        ):
            found, message = complaint(*arguments)
            assert found == code
            assert told in message

    def test_a_hub_that_cannot_be_reached(self, student):
        result = run_process(
            "align",
            "--student",
            student,
            "--teacher",
            "nobody/nothing",
            "--text",
            "a",
            HF_HUB_OFFLINE="1",
        )
        code, message = complaint_of(result)
        assert code == 1
        assert "'nobody/nothing'" in message
        assert "check the network, or name a local directory" in message

    def test_a_directory_without_a_tokenizer(self, student, tmp_path):
        code, message = complaint(
            "align", "--student", student, "--teacher", tmp_path, "--text", "a"
        )
        assert code == 1
        assert f"`{tmp_path}` must be a fast tokenizer, but has no tokenizer.json" in message

    def test_a_directory_without_safetensors(self, tmp_path, directory):
        model = tiny_tokenizer(tmp_path / "model", packs_digits=True)
        source = directory / "student-model" / "config.json"
        (model / "config.json").write_text(source.read_text())
        code, message = complaint("eval", "--model", model, "--text", f"{directory}/heldout.txt")
        assert code == 1
        assert message.startswith(f"{model}: has no safetensors weights; name a Hugging Face model")


class TestAlign:
    def test_json_pairs_a_number_with_its_digits(self, student, teacher):
        code, out, err = run(
            "align", "--student", student, "--teacher", teacher, "--text", "201 apples", "--json"
        )
        assert (code, err) == (0, "")
        record = json.loads(out)
        assert record["student"]["pieces"] == ["201", " apples"]
        assert record["teacher"]["pieces"] == ["2", "0", "1", " apples"]
        assert record["chunks"] == [[0, 1, 0, 3], [1, 2, 3, 4]]

    def test_the_real_pair(self, asset):
        asset("llama3"), asset("smollm2-135m")
        code, out, _ = run(
            "align",
            "--student",
            "asset:llama3",
            "--teacher",
            "asset:smollm2-135m",
            "--text",
            "201 apples",
            "--json",
        )
        assert code == 0
        record = json.loads(out)
        pairs = [
            (record["student"]["pieces"][a:b], record["teacher"]["pieces"][c:d])
            for a, b, c, d in record["chunks"]
        ]
        assert pairs[0] == (["201"], ["2", "0", "1"])

    def test_table(self, student, teacher):
        result = run("align", "--student", student, "--teacher", teacher, "--text", "201 apples")
        assert result.code == 0
        rows = [line for line in result.out.splitlines() if line.startswith("│")]
        cells = [[cell.strip() for cell in row.split("│")[1:3]] for row in rows]
        assert cells == [
            ["'201'", "'2' '0' '1'"],
            ["' apples'", "' apples'"],
            ["gaps: none", "gaps: none"],
        ]

    def test_text_from_a_file(self, student, teacher, tmp_path):
        (tmp_path / "a.txt").write_text("Zoë 201\n", encoding="utf-8")
        _, out, _ = run(
            "align",
            "--student",
            student,
            "--teacher",
            teacher,
            "--file",
            tmp_path / "a.txt",
            "--json",
        )
        assert "".join(json.loads(out)["student"]["pieces"]) == "Zoë 201\n"

    def test_another_text_on_the_teachers_side(self, student, teacher, tmp_path):
        (tmp_path / "t.txt").write_text("201 pears", encoding="utf-8")
        arguments = ["--student", student, "--teacher", teacher, "--text", "201 apples", "--json"]
        _, out, _ = run("align", *arguments, "--teacher-file", tmp_path / "t.txt")
        record = json.loads(out)
        assert record["path"] == "dp"
        assert record["chunks"][0] == [0, 1, 0, 3]
        assert record["gaps"]["student"] == [1]

    def test_control_tokens_are_parsed_on_demand(self, student, teacher):
        arguments = ["--student", student, "--teacher", teacher, "--json", "--text"]
        text = "<|begin_of_text|>201"
        for options, pieces in (((), 1), (("--parse-control",), 2)):
            _, out, _ = run("align", *arguments, text, *options)
            has_control = json.loads(out)["student"]["pieces"][0] == "<|begin_of_text|>"
            assert has_control == (pieces == 2)

    def test_a_page_with_the_rows_of_w(self, student, teacher, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # short enough for a line, wherever that is
        page = Path("pages/a.html")
        arguments = ["align", "--student", student, "--teacher", teacher, "--text", "201 <b>"]
        code, out, err = run(*arguments, "--html", page)
        assert (code, out.split(), err) == (0, ["page:", str(page)], "")
        assert tree(tmp_path / "pages") == {"a.html"}
        assert "0.9009" in page.read_text(encoding="utf-8")
        assert "201 <b>" not in page.read_text(encoding="utf-8")
        # With W from a file, and JSON as well.
        run("project", "--student", student, "--teacher", teacher, "--out", tmp_path / "w")
        _, out, _ = run(*arguments, "--html", page, "--projection", tmp_path / "w", "--json")
        assert json.loads(out)["path"] == "bytes"
        # W of another pair: nothing is written over.
        before = page.read_bytes()
        code, message = complaint(
            *("align", "--student", teacher, "--teacher", student, "--text", "x"),
            *("--html", page, "--projection", tmp_path / "w"),
        )
        assert code == 1
        assert "was built for another student tokenizer" in message
        assert page.read_bytes() == before

    def test_missing_file(self, student, teacher, tmp_path):
        code, message = complaint(
            "align", "--student", student, "--teacher", teacher, "--file", tmp_path / "a.txt"
        )
        assert (code, message) == (2, f"`--file` {tmp_path}/a.txt does not exist")

    def test_a_file_that_is_not_utf8(self, student, teacher, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"abc\xe9")
        code, message = complaint(
            "align", "--student", student, "--teacher", teacher, "--file", tmp_path / "a.txt"
        )
        assert (code, message) == (1, f"{tmp_path}/a.txt must be UTF-8, got a bad byte at 3")

    def test_text_that_is_not_utf8(self, student, teacher):
        code, message = complaint(
            "align", "--student", student, "--teacher", teacher, "--text", os.fsdecode(b"abc\xe9")
        )
        assert (code, message) == (2, "`--text` must be UTF-8, got a bad byte at 3")


class TestProject:
    def test_json_and_file(self, student, teacher, tmp_path):
        out_file = tmp_path / "w.safetensors"
        code, out, err = run(
            "project", "--student", student, "--teacher", teacher, "--out", out_file, "--json"
        )
        assert (code, err) == (0, "")
        record = json.loads(out)
        (row,) = record["examples"]
        assert row["token"] == "201"
        assert row["pieces"] == ["2", "0", "1"]
        np.testing.assert_allclose(row["weights"], np.array([1, 0.1, 0.01]) / 1.11, rtol=1e-6)
        assert tree(tmp_path) == {"w.safetensors"}

    def test_table(self, student, teacher):
        code, out, _ = run("project", "--student", student, "--teacher", teacher)
        assert code == 0
        assert "'2' 0.9009, '0' 0.0901, '1' 0.0090" in " ".join(out.replace("│", " ").split())

    def test_a_student_without_the_number_shows_no_row(self, student, teacher):
        result = run("project", "--student", teacher, "--teacher", student, "--json")
        assert result.code == 0
        assert json.loads(result.out)["examples"] == []

    def test_a_token_that_is_not_there(self, student, teacher, tmp_path):
        options = ("--out", tmp_path / "w", "--show", "201", "20120")
        code, message = complaint("project", "--student", student, "--teacher", teacher, *options)
        assert (code, message) == (2, f"{student} has no token '20120'")
        assert tree(tmp_path) == set()

    def test_bad_option(self, student, teacher, tmp_path):
        code, message = complaint(
            "project",
            "--student",
            student,
            "--teacher",
            teacher,
            "--out",
            tmp_path / "w.safetensors",
            "--gamma",
            "1.5",
        )
        assert (code, message) == (2, "`gamma` must be in [0, 1], got 1.5")
        assert tree(tmp_path) == set()

    def test_an_output_that_cannot_be_written(self, student, teacher, tmp_path):
        (tmp_path / "file").write_text("")
        code, message = complaint(
            "project", "--student", student, "--teacher", teacher, "--out", tmp_path / "file" / "w"
        )
        assert code == 1
        assert str(tmp_path / "file") in message
        assert tree(tmp_path) == {"file"}


class TestReport:
    def test_missing_run(self, tmp_path):
        code, message = complaint("report", tmp_path / "none")
        assert (code, message) == (2, f"`run_dir` {tmp_path}/none does not exist")

    def test_a_name_of_two_lines_is_told_in_one(self, tmp_path):
        _, message = complaint("report", tmp_path / "a\nb")
        assert message == f"`run_dir` {tmp_path}/a b does not exist"

    @pytest.mark.parametrize("options", [[], ["--html"]])
    def test_not_a_run(self, tmp_path, options):
        code, message = complaint("report", tmp_path, *options, *(tmp_path / "a" for _ in options))
        assert code == 1
        assert message.startswith(f"{tmp_path} must be the directory of a run, but has no")
        assert tree(tmp_path) == set()
