import json

import matplotlib.image
import pytest

from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.report import plot_curves, read_evaluation, read_metrics

RESULTS = {"student after": {"all": 1.5, "digits": None}}


def record(step, **values):
    common = {"step": step, "cross_entropy": 3.0 / step, "learning_rate": 0.1}
    return common | values


@pytest.fixture
def run_dir(tmp_path):
    """A run of three steps."""
    lines = [json.dumps(record(n, distillation=2.0, **{"t/agreement": 0.5})) for n in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "evaluation.json").write_text(json.dumps(RESULTS))
    return tmp_path


class TestReadMetrics:
    def test_records_by_step(self, run_dir):
        assert [r["step"] for r in read_metrics(run_dir)] == [1, 2, 3]

    def test_a_last_line_that_a_kill_cut_is_left_out(self, run_dir):
        with (run_dir / "metrics.jsonl").open("a") as file:
            file.write('{"step": 4, "cross')
        assert [r["step"] for r in read_metrics(run_dir)] == [1, 2, 3]

    @pytest.mark.parametrize("line", ['{"ste', "2", '{"loss": 1.0}'])
    def test_any_other_bad_line_is_named(self, run_dir, line):
        (run_dir / "metrics.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
        with pytest.raises(XTokenError, match=r"metrics\.jsonl:2: must be a step in JSON"):
            read_metrics(run_dir)

    def test_missing_run(self, tmp_path):
        with pytest.raises(UsageError, match="none does not exist"):
            read_metrics(tmp_path / "none")

    def test_not_a_run(self, tmp_path):
        with pytest.raises(XTokenError, match=r"but has no metrics\.jsonl"):
            read_metrics(tmp_path)

    @pytest.mark.parametrize("content", ["", '{"step": 1, "cro'])
    def test_no_step_yet(self, tmp_path, content):
        (tmp_path / "metrics.jsonl").write_text(content)
        with pytest.raises(XTokenError, match="at least one step"):
            read_metrics(tmp_path)


class TestReadEvaluation:
    def test_results_by_name(self, run_dir):
        assert read_evaluation(run_dir) == RESULTS

    def test_nothing_was_evaluated(self, tmp_path):
        assert read_evaluation(tmp_path) == {}


class TestPlotCurves:
    def test_draws_the_curves_and_leaves_nothing_else(self, run_dir):
        before = set(run_dir.iterdir())
        path = plot_curves(run_dir)
        assert set(run_dir.iterdir()) - before == {path} == {run_dir / "curves.png"}
        height, width, _ = matplotlib.image.imread(path).shape
        assert width > 2 * height > 600

    def test_the_losses_are_in_it(self, run_dir):
        one = plot_curves(run_dir).read_bytes()
        assert plot_curves(run_dir).read_bytes() == one
        lines = [
            json.dumps(record(n, distillation=9.0 * n, **{"t/agreement": 0.5})) for n in (1, 2, 3)
        ]
        (run_dir / "metrics.jsonl").write_text("\n".join(lines))
        assert plot_curves(run_dir).read_bytes() != one

    def test_cross_entropy_alone(self, tmp_path):
        (tmp_path / "metrics.jsonl").write_text(json.dumps(record(1)))
        assert plot_curves(tmp_path).stat().st_size > 1000

    def test_missing_run(self, tmp_path):
        with pytest.raises(UsageError):
            plot_curves(tmp_path / "none")
        assert list(tmp_path.iterdir()) == []
