import json
import math
from pathlib import Path

import pytest

from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.report import read_runs

CONFIG = "optim: {steps: 3}\nteachers:\n  qwen2.5: {model: m, loss: {kind: p_kl}}\n"
FILES = {
    "config.yaml": CONFIG,
    "metrics.jsonl": '{"step": 1, "loss": 2.5}\n{"step": 2, "skipped": []}\n'
    '{"step": 3, "loss": NaN}\n',
    "evaluation.json": '{"student after": {"all": 1.5, "digits": null}}',
    "samples.jsonl": '{"prompt": "a", "text": "b\u2028c"}\n',
}


def write(directory, **changes):
    directory.mkdir(parents=True)
    for name, content in (FILES | changes).items():
        if content is not None:
            (directory / name).write_text(content, encoding="utf-8")
    return directory


class TestOneRun:
    def test_all_is_there(self, tmp_path):
        (run,) = read_runs([write(tmp_path / "r")])
        assert (run.name, run.directory, run.notes) == ("r", tmp_path / "r", {})
        assert run.settings["optim.steps"] == 3
        assert run.teachers == ["qwen2.5"]
        assert run.results == {"student after": {"all": 1.5, "digits": None}}
        assert run.samples == [{"prompt": "a", "text": "b\u2028c"}]
        assert [record["step"] for record in run.metrics] == [1, 3]

    def test_points_are_finite(self, tmp_path):
        (run,) = read_runs([write(tmp_path / "r")])
        assert math.isnan(run.metrics[1]["loss"])
        assert run.points("loss") == [(1, 2.5)]
        assert run.points("other") == []

    @pytest.mark.parametrize("name", FILES)
    def test_a_file_that_is_not_there_is_a_note(self, tmp_path, name):
        (run,) = read_runs([write(tmp_path / "r", **{name: None})])
        assert list(run.notes) == [name]
        assert run.notes[name].startswith("is not there; ")

    @pytest.mark.parametrize(
        ("name", "content", "told"),
        [
            ("config.yaml", "a: [", "while parsing"),
            ("config.yaml", "- a", "must be a mapping"),
            ("metrics.jsonl", '{"ste\n{"step": 2}\n', "metrics.jsonl:1: must be a step in JSON"),
            ("metrics.jsonl", "", "must hold at least one step"),
            ("evaluation.json", "{", "Expecting property name"),
            ("evaluation.json", "[]", "must hold results by model"),
            ("evaluation.json", '{"a": {"all": 1}}', "a must have `all` and `digits`"),
            ("samples.jsonl", '{"prompt": "a"}\n', "line 1 must have `prompt` and `text`"),
            ("samples.jsonl", "{", "Expecting property name"),
        ],
    )
    def test_a_damaged_file_is_a_note_of_one_line(self, tmp_path, name, content, told):
        (run,) = read_runs([write(tmp_path / "r", **{name: content})])
        assert list(run.notes) == [name]
        assert run.notes[name].startswith("cannot be read: ")
        assert told in run.notes[name]
        assert "\n" not in run.notes[name]

    def test_bytes_that_are_not_text(self, tmp_path):
        write(tmp_path / "r")
        for name in FILES:
            (tmp_path / "r" / name).write_bytes(b"\xff\n\xff\n")
        (run,) = read_runs([tmp_path / "r"])
        assert list(run.notes) == list(FILES)

    def test_a_last_line_that_a_kill_cut_loses_nothing_else(self, tmp_path):
        cut = FILES["metrics.jsonl"] + '{"step": 4, "lo'
        (run,) = read_runs([write(tmp_path / "r", **{"metrics.jsonl": cut})])
        assert run.notes == {}
        assert len(run.metrics) == 2


class TestDirectories:
    def test_names_tell_runs_apart(self, tmp_path):
        paths = [write(tmp_path / name) for name in ("a/run", "b/run", "c")]
        assert [run.name for run in read_runs(paths)] == [str(paths[0]), str(paths[1]), "c"]

    def test_a_run_given_twice_is_read_once(self, tmp_path):
        path = write(tmp_path / "a")
        assert [run.name for run in read_runs([path, path / ".." / "a"])] == ["a"]

    def test_here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(write(tmp_path / "a"))
        assert [run.name for run in read_runs([Path()])] == ["a"]

    def test_missing(self, tmp_path):
        with pytest.raises(UsageError, match="none does not exist"):
            read_runs([write(tmp_path / "a"), tmp_path / "none"])

    def test_not_of_a_run(self, tmp_path):
        (tmp_path / "file").write_text(json.dumps({}))
        for path in (tmp_path, tmp_path / "file"):
            with pytest.raises(XTokenError, match=r"but has none of config\.yaml, metrics\.jsonl"):
                read_runs([path])
