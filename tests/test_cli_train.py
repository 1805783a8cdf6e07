"""`xtoken train`: what a run writes, and what bad input gets."""

import json
import shutil
from functools import partial

import pytest
import yaml

from tests.commands import complaint, complaint_of, run, run_process, tree
from tests.tiny import tiny_config, tiny_tokenizer
from xtoken_jax.config import load_config, to_dict
from xtoken_jax.projection import build_projection, save_projection
from xtoken_jax.text import ByteTokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The files of a tiny experiment, which no test may change."""
    directory = tmp_path_factory.mktemp("train")
    tiny_config(directory)
    return directory


@pytest.fixture
def config_file(directory, tmp_path):
    """A function from changes to a config to its file; the run is in `tmp_path / "run"`."""

    def write(**overrides):
        config = tiny_config(directory, **({"run_dir": str(tmp_path / "run")} | overrides))
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(to_dict(config)))
        return path

    return write


@pytest.fixture(scope="module")
def finished(directory):
    """The directory of a run of two steps, and its config."""
    config = tiny_config(directory, optim={"steps": 2}, run_dir=str(directory / "finished"), seed=5)
    path = directory / "finished.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    assert run("train", path).code == 0
    return directory / "finished", path


def test_help_shows_what_a_config_says(config_file):
    result = run("train", config_file(optim={"steps": 4321}), "--help")
    assert result.code == 0
    assert "(default: 4321)" in result.out


class TestARun:
    def test_leaves_what_it_should(self, finished):
        run_dir, config_path = finished
        expected = {"config.yaml", "metrics.jsonl", "evaluation.json", "curves.png"}
        expected |= {"student/model.safetensors", "student/tokenizer.json", "checkpoints/2"}
        assert expected <= tree(run_dir)
        assert not any("tmp" in name for name in tree(run_dir))
        assert load_config(run_dir / "config.yaml") == load_config(config_path)
        steps = list(map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines()))
        assert [step["step"] for step in steps] == [1, 2]

    def test_the_command_line_overrides_the_file(self, config_file, tmp_path):
        options = ("--optim.steps", 1, "--teachers.tiny.loss.kind", "none")
        result = run("train", config_file(), *options)
        assert result.code == 0
        resolved = load_config(tmp_path / "run" / "config.yaml")
        assert resolved.optim.steps == 1
        assert resolved.teachers["tiny"].loss.kind == "none"

    def test_report_draws_it_again(self, finished):
        run_dir, _ = finished
        (run_dir / "curves.png").unlink()
        result = run("report", run_dir)
        assert (result.code, result.err) == (0, "")
        assert "student's change" in result.out
        assert (run_dir / "curves.png").stat().st_size > 1000

    def test_report_writes_one_page_of_several_runs(self, finished, tmp_path):
        run_dir, _ = finished
        settings = yaml.safe_load((run_dir / "config.yaml").read_text())
        settings["teachers"]["tiny"]["loss"]["kind"] = "uld"
        shutil.copytree(run_dir, tmp_path / "other")
        (tmp_path / "other/config.yaml").write_text(yaml.safe_dump(settings))
        before = tree(tmp_path)
        path = tmp_path / "pages" / "report.html"
        result = run("report", run_dir, tmp_path / "other", "--html", path)
        assert (result.code, result.err) == (0, "")
        assert result.out == f"page: {path}\n"
        assert tree(tmp_path) - before == {"pages", "pages/report.html"}
        page = path.read_text(encoding="utf-8")
        assert "<h1>Runs finished, other</h1>" in page
        assert '<th scope="row">teachers.tiny.loss.kind</th><td>p_kl</td><td>uld</td>' in page
        assert page.count("2-digit numerals <small>") == 1  # of the one audit of both
        assert "samples.jsonl is not there" in page

    def test_report_says_why_there_is_no_audit(self, finished, tmp_path):
        shutil.copytree(finished[0], tmp_path / "run")
        (tmp_path / "run/projections/tiny.safetensors").unlink()
        result = run("report", tmp_path / "run", "--html", tmp_path / "a.html")
        assert (result.code, result.err) == (0, "")
        page = (tmp_path / "a.html").read_text(encoding="utf-8")
        missing = f"{tmp_path}/run/projections/tiny.safetensors does not exist"
        assert f"There is no audit: {missing}" in page
        assert "<h2>Curves</h2>" in page

    def test_the_same_command_again_changes_no_step(self, finished):
        run_dir, config_path = finished
        before = (run_dir / "metrics.jsonl").read_text()
        for arguments in ([], ["--resume"]):
            result = run("train", config_path, *arguments)
            assert result.code == 0
            assert (run_dir / "metrics.jsonl").read_text() == before


class TestBadConfig:
    def test_missing_file(self, tmp_path):
        assert complaint("train", tmp_path / "none.yaml") == (
            2,
            f"config {tmp_path}/none.yaml does not exist",
        )

    def test_unknown_key_and_bad_value(self, config_file):
        path = config_file()
        path.write_text(path.read_text() + "epochs: 3\n")
        code, message = complaint("train", path)
        assert code == 2
        assert message.startswith(f"{path}: `epochs` is not a field; there are run_dir,")
        path = config_file()
        path.write_text(path.read_text().replace("kind: p_kl", "kind: kl"))
        code, message = complaint("train", path)
        assert code == 2
        allowed = "'p_kl', 'h_kl', 'gold', 'uld', 'c_kl' or 'none'"
        assert message.endswith(f"`teachers.tiny.loss.kind`: input should be {allowed}, got 'kl'")

    @pytest.mark.parametrize(
        ("option", "value", "told"),
        [
            (
                "--optim.learning-rate",
                "-1",
                "`optim.learning_rate`: input should be greater than 0",
            ),
            ("--optim.learning-rate", "fast", "--optim.learning-rate"),
            ("--optim.warmup-steps", "6", "`warmup_steps` must be below `steps` (6), got 6"),
            ("--optim.lr", "1", "Unrecognized options: --optim.lr, 1"),
            ("--mesh.data", "3", "`data.batch_size` must be a multiple"),
        ],
    )
    def test_on_the_command_line(self, config_file, tmp_path, option, value, told):
        code, message = complaint("train", config_file(), option, value)
        assert code == 2
        assert told in message
        assert tree(tmp_path) == {"config.yaml"}


def source(path):
    return {"data": {"train": [{"kind": "jsonl", "path": str(path)}]}}


def written(path, content):
    path.write_text(content)
    return path


def without_weights(side, directory, tmp_path):
    model = tiny_tokenizer(tmp_path / "model", packs_digits=side == "student")
    shutil.copy(directory / f"{side}-model" / "config.json", model)
    changed = {"model": str(model)}
    return {"student": changed} if side == "student" else {"teachers": {"tiny": changed}}


def projection_of_others(directory, tmp_path):
    student = ByteTokenizer.load(directory / "student-model")
    save_projection(build_projection(student, student), tmp_path / "w")
    return {"teachers": {"tiny": {"projection": {"path": str(tmp_path / "w")}}}}


def heldout(path):
    return {"evaluation": {"sources": [{"kind": "text", "path": str(path)}]}}


# Changes to the tiny config that cannot work, the exit code, and what must be told.
BAD_INPUTS = {
    "unknown asset": (
        lambda directory, tmp_path: {"student": {"tokenizer": "asset:llama33"}},
        2,
        "llama33",
    ),
    "no such teacher": (
        lambda directory, tmp_path: {"teachers": {"tiny": {"model": "/no/model"}}},
        2,
        "'/no/model' must be",
    ),
    "no data": (
        lambda directory, tmp_path: source(tmp_path / "none*"),
        2,
        "nothing matches {}/none*",
    ),
    "no heldout": (
        lambda directory, tmp_path: heldout(tmp_path / "none"),
        2,
        "nothing matches {}/none",
    ),
    "empty data": (
        lambda directory, tmp_path: source(written(tmp_path / "a", "")),
        1,
        "{}/a must hold at least one record",
    ),
    "bad record": (
        lambda directory, tmp_path: source(written(tmp_path / "a", '{"text": "a"}\n{"text"')),
        1,
        "{}/a:2: must be JSON",
    ),
    "no weights of the teacher": (
        partial(without_weights, "teacher"),
        1,
        "{}/model: has no safetensors weights",
    ),
    "no weights of the student": (
        partial(without_weights, "student"),
        1,
        "{}/model: has no safetensors weights",
    ),
    "no W": (
        lambda directory, tmp_path: {
            "teachers": {"tiny": {"projection": {"path": f"{tmp_path}/w"}}}
        },
        2,
        "{}/w does not exist; `xtoken project` writes it",
    ),
    "W of others": (projection_of_others, 1, "{}/w was built for another teacher tokenizer"),
    "too few devices": (
        lambda directory, tmp_path: {"mesh": {"tensor": 64}},
        2,
        "needs 64 devices",
    ),
}


class TestBadInput:
    @pytest.mark.parametrize("name", BAD_INPUTS)
    def test_is_one_line_and_leaves_nothing(self, config_file, directory, tmp_path, name):
        changes, expected, told = BAD_INPUTS[name]
        path = config_file(**changes(directory, tmp_path))
        before = tree(tmp_path)
        code, message = complaint("train", path)
        assert code == expected
        assert told.format(tmp_path) in message
        assert tree(tmp_path) == before

    def test_in_a_process_of_its_own(self, config_file, tmp_path):
        path = config_file(teachers={"tiny": {"model": "nobody/nothing"}})
        before = tree(tmp_path)
        code, message = complaint_of(run_process("train", path, HF_HUB_OFFLINE="1"))
        assert code == 1
        assert "'nobody/nothing'" in message
        assert tree(tmp_path) == before

    def test_resume_without_a_checkpoint(self, config_file, tmp_path):
        code, message = complaint("train", config_file(), "--resume")
        assert code == 2
        assert "--resume needs a checkpoint" in message
        assert tree(tmp_path) == {"config.yaml"}

    def test_a_checkpoint_of_another_config(self, finished):
        run_dir, config_path = finished
        before = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()}
        code, message = complaint(
            "train", config_path, "--seed", "6", "--teachers.tiny.projection.gamma", "0.2"
        )
        assert code == 1
        assert f"{run_dir}/checkpoints/2 is of another config; undo the change" in message
        assert message.endswith("seed: 5 -> 6; teachers.tiny.projection.gamma: 0.1 -> 0.2")
        assert {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()} == before
