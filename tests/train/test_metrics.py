"""metrics.jsonl after a kill, and files that are written whole."""

import json

import pytest

from xtoken_jax.train.metrics import MetricsLog, write_text


def test_a_new_log_appends(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, step=0) as log:
        log.write({"step": 1, "loss": 2.5})
        log.write({"step": 2, "loss": 2.0})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_steps_past_the_checkpoint_and_cut_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    with MetricsLog(path, step=2) as log:
        log.write({"step": 3, "again": True})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "again": true}\n'


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "evaluation.json"
    write_text(path, "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old"
