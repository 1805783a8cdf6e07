"""`xtoken init`: a config from the names of a student and its teachers."""

import json
from pathlib import Path

import pytest
import yaml

from tests.commands import complaint, run, tree
from tests.tiny import tiny_config, tiny_tokenizer
from xtoken_jax.config import check_config, load_config
from xtoken_jax.config.starter import LARGE, SMALL, StarterTeacher, starter_config


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The files of a tiny experiment, which no test may change."""
    directory = tmp_path_factory.mktemp("init")
    tiny_config(directory)
    return directory


@pytest.fixture
def student(directory):
    return directory / "student-model"


@pytest.fixture
def teacher(directory):
    return directory / "teacher-model"


def starter(tmp_path, models, **options):
    teachers = [StarterTeacher(model, "p_kl", "Because.", 1.3) for model in models]
    options = {"path": tmp_path / "a.yaml", "sizes": LARGE} | options
    text = starter_config("owner/name", teachers, **options)
    return text, check_config(yaml.safe_load(text), name="starter")


class TestText:
    @pytest.mark.parametrize("sizes", [SMALL, LARGE])
    @pytest.mark.parametrize("has_problems", [True, False])
    def test_it_is_a_config(self, tmp_path, sizes, has_problems):
        _, config = starter(tmp_path, ["b"], sizes=sizes, has_problems=has_problems)
        assert config.student.model == "owner/name"
        assert config.data.student_length == sizes.student_length
        # A third more tokens, and a tenth to spare.
        assert config.teachers["b"].length >= 1.43 * sizes.student_length
        kinds = {source.kind for source in (*config.data.train, *config.evaluation.sources)}
        assert kinds == {"python_docs"} | ({"gsm_symbolic"} if has_problems else set())
        assert (config.evaluation.max_questions > 0) == has_problems

    def test_nothing_is_held_out_and_trained_on(self, tmp_path):
        _, config = starter(tmp_path, ["b"])
        trained = {(s.kind, s.seed, s.part) for s in config.data.train}
        assert not trained & {(s.kind, s.seed, s.part) for s in config.evaluation.sources}

    def test_teachers_are_called_after_their_models(self, tmp_path):
        models = ["Qwen/Qwen3-4B", "asset:smollm2-135m", "other/Qwen3-4B", "/tmp/my model/", "~/é"]
        _, config = starter(tmp_path, models)
        names = ["Qwen3-4B", "smollm2-135m", "Qwen3-4B-2", "my-model", "teacher"]
        assert list(config.teachers) == names
        assert [teacher.model for teacher in config.teachers.values()] == models

    @pytest.mark.parametrize("name", ["a: b", "#x", "null", "01", "{a}", "é'\"", "- a", "a #b"])
    def test_a_name_stays_the_name(self, tmp_path, name):
        _, config = starter(tmp_path, [name], tokenizer=name)
        (teacher,) = config.teachers.values()
        assert (teacher.model, config.student.tokenizer) == (name, name)

    def test_lines_fit_the_screen(self, tmp_path):
        text, _ = starter(tmp_path, ["b", "c"], path=Path("a.yaml"), tokenizer="t")
        assert max(map(len, text.splitlines())) <= 100


class TestCommand:
    def test_what_it_writes_trains(self, student, teacher, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = run("init", "--student", student, "--teacher", teacher, "--output", "mine.yaml")
        assert (result.code, result.err) == (0, "")
        assert "teacher-model: P-KL. The exact common set holds only" in result.out
        assert "xtoken data mine.yaml" in result.out
        assert "xtoken train mine.yaml" in result.out
        assert "# The exact common set holds only" in (tmp_path / "mine.yaml").read_text()
        assert tree(tmp_path) == {"mine.yaml"}
        # Less of everything; all that is learnt and measured is there.
        less = ("--optim.steps", 2, "--optim.warmup-steps", 0, "--evaluation.max-documents", 1)
        less += ("--evaluation.max-questions", 1, "--evaluation.max-new-tokens", 4)
        assert run("train", "mine.yaml", *less).code == 0
        results = json.loads((tmp_path / "runs/mine/evaluation.json").read_text())
        assert set(results) == {"student before", "teacher teacher-model", "student after"}
        assert "exact_match" in results["student after"]
        steps = (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()
        assert len(steps) == 2
        assert "teacher-model/distillation" in json.loads(steps[-1])

    def test_the_loss_is_the_audits(self, student, teacher, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        # The teacher has a token a digit, so as a student it has no numerals to lose.
        teachers = ("--teacher", student, "--teacher", teacher)
        assert run("init", "--student", teacher, *teachers).code == 0
        config = load_config("experiment.yaml")
        losses = {name: each.loss.kind for name, each in config.teachers.items()}
        record = json.loads(run("audit", "--student", teacher, "--teacher", student, "--json").out)
        assert record["recommendation"]["loss"] == "h_kl"
        assert losses == {"student-model": "h_kl", "teacher-model": "p_kl"}
        text = (tmp_path / "experiment.yaml").read_text()
        assert "# The two have the same tokens" in text

    def test_a_vocabulary_for_the_student(self, student, teacher, tmp_path):
        output = tmp_path / "new" / "a.yaml"
        other = tiny_tokenizer(tmp_path / "other", packs_digits=True)
        options = ("--tokenizer", other, "--output", output)
        assert run("init", "--student", teacher, "--teacher", teacher, *options).code == 0
        config = load_config(output)
        assert config.student.tokenizer == str(other)
        assert config.teachers["teacher-model"].loss.kind == "p_kl"
        assert config.run_dir == "runs/a"

    def test_a_file_is_replaced_only_when_told(self, student, teacher, tmp_path):
        output = tmp_path / "a.yaml"
        output.write_text("mine")
        command = ("init", "--student", student, "--teacher", teacher, "--output", output)
        code, message = complaint(*command)
        assert (code, message) == (
            2,
            f"{output} exists; choose another `--output`, or give `--force`",
        )
        assert output.read_text() == "mine"
        assert run(*command, "--force").code == 0
        assert load_config(output).student.model == str(student)
        assert tree(tmp_path) == {"a.yaml"}

    @pytest.mark.parametrize(
        ("side", "told"),
        [
            ("student", "without config.json; `--tokenizer` gives a student another vocabulary"),
            ("teacher", "without config.json"),
        ],
    )
    def test_a_tokenizer_is_no_model(self, student, tmp_path, side, told):
        other = tiny_tokenizer(tmp_path / "other", packs_digits=True)
        sides = {"student": student, "teacher": student, side: other}
        options = [word for name, path in sides.items() for word in (f"--{name}", path)]
        code, message = complaint("init", *options, "--output", tmp_path / "a.yaml")
        assert (code, message) == (2, f"`--{side}` must be a model, got {other}, {told}")
        assert not (tmp_path / "a.yaml").exists()

    def test_a_family_that_cannot_be_trained_is_refused_at_once(self, student, tmp_path):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
        options = ("--student", student, "--teacher", tmp_path, "--output", tmp_path / "a.yaml")
        code, message = complaint("init", *options)
        assert code == 1
        assert "mamba" in message

    def test_usage(self, student, tmp_path):
        code, message = complaint("init", "--student", student)
        assert (code, message) == (2, "`--teacher` must be given at least once")
        options = ("--student", student, "--teacher", student, "--output", tmp_path)
        code, message = complaint("init", *options)
        assert (code, message) == (2, f"`--output` must be a file, got the directory {tmp_path}")
