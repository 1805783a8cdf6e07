"""The helpers of scripts/reproduce.py: cells that are run once, their configs and their tables."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from reproduction import cells, pretrained, scratch
from reproduction.cells import Cell, read_results, run_cells
from reproduction.methods import BASELINE, METHODS
from reproduction.table import draw_answers, draw_gains, markdown, mean_and_spread

from xtoken_jax.config import check_config, load_config, merged, to_dict
from xtoken_jax.evaluate import questions_of
from xtoken_jax.text import ByteTokenizer

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


def _applied(name: str) -> dict[str, Any]:
    """The quickstart with a method, every default written out."""
    config = METHODS[name].applied_to(to_dict(load_config(QUICKSTART)), "smollm2")
    return to_dict(check_config(config, name=name))


def test_methods_are_valid_and_all_different() -> None:
    configs = {name: _applied(name) for name in METHODS}
    assert len({json.dumps(config, sort_keys=True) for config in configs.values()}) == len(METHODS)
    assert configs[BASELINE]["loss"]["distillation_weight"] == 0
    for name, config in configs.items():
        loss = config["teachers"]["smollm2"]["loss"]
        assert name == BASELINE or name.startswith(loss["kind"])


def test_merged_changes_only_what_is_named_and_nothing_in_place() -> None:
    before = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert merged(before, {"a": {"b": 3}, "d": [2]}) == {"a": {"b": 3, "c": 2}, "d": [2]}
    assert before == {"a": {"b": 1, "c": 2}, "d": [1]}


class TestCells:
    """Each cell is run once, whatever stops in between."""

    @pytest.fixture
    def runs(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Directories of the runs that were trained, by a stand-in that writes what a run does."""
        trained: list[str] = []

        def train(config: Any) -> SimpleNamespace:
            run_dir = Path(config.run_dir)
            trained.append(f"{run_dir.parent.name}/{run_dir.name}")
            (run_dir / "checkpoints").mkdir(parents=True)
            (run_dir / "evaluation.json").write_text(json.dumps({"student after": {"all": 1.5}}))
            (run_dir / "metrics.jsonl").write_text("")
            return SimpleNamespace(stopped_by="SIGTERM" if "stopped" in run_dir.name else None)

        monkeypatch.setattr(cells, "train", train)
        return trained

    def _cell(self, method: str, seed: int = 0) -> Cell:
        config = to_dict(load_config(QUICKSTART))
        return Cell("packed", method, seed, lambda: config)

    def test_only_what_is_not_finished_is_run(self, tmp_path: Path, runs: list[str]) -> None:
        results = tmp_path / "scratch-small.jsonl"
        run_cells([self._cell("ce")], tmp_path, results)
        run_cells([self._cell("ce"), self._cell("gold"), self._cell("ce", 1)], tmp_path, results)
        assert runs == ["packed/ce-seed0", "packed/gold-seed0", "packed/ce-seed1"]
        found = [(r["method"], r["seed"], r["models"]) for r in read_results(results)]
        of_model = {"student after": {"all": 1.5}}
        assert found == [("ce", 0, of_model), ("gold", 0, of_model), ("ce", 1, of_model)]

    def test_the_config_of_a_finished_cell_is_not_made(
        self, tmp_path: Path, runs: list[str]
    ) -> None:
        results = tmp_path / "results.jsonl"
        run_cells([self._cell("ce")], tmp_path, results)

        def tunes_a_teacher() -> dict[str, Any]:
            raise AssertionError("the cell is finished")

        run_cells([Cell("packed", "ce", 0, tunes_a_teacher)], tmp_path, results)
        assert len(runs) == 1

    @pytest.mark.parametrize("part", [scratch, pretrained])
    def test_naming_the_cells_makes_nothing(self, tmp_path: Path, part: Any) -> None:
        found = [*part.cells(tmp_path / "part", "small", range(2))]
        assert len({cell.key for cell in found}) == len(found)
        assert {cell.method for cell in found} == {*METHODS}
        assert [*tmp_path.iterdir()] == []

    def test_a_finished_cell_keeps_what_a_report_reads_and_no_model(
        self, tmp_path: Path, runs: list[str]
    ) -> None:
        run_cells([self._cell("ce")], tmp_path, tmp_path / "results.jsonl")
        left = {path.name for path in (tmp_path / runs[0]).iterdir()}
        assert left == {"evaluation.json", "metrics.jsonl"}

    def test_a_stopped_cell_is_not_counted_and_keeps_its_checkpoint(
        self, tmp_path: Path, runs: list[str]
    ) -> None:
        results = tmp_path / "results.jsonl"
        with pytest.raises(SystemExit, match="SIGTERM"):
            run_cells([self._cell("ce"), self._cell("stopped")], tmp_path, results)
        assert [result["method"] for result in read_results(results)] == ["ce"]
        assert (tmp_path / runs[1] / "checkpoints").is_dir()


class TestScratch:
    """Sums, and the tokenizers that cut them."""

    @pytest.mark.parametrize(
        ("digits", "word", "number"),
        [
            ("packs", ["Answer"], ["111"]),
            ("splits", ["Answer"], ["1", "1", "1"]),
            ("spells", [*"Answer"], ["111"]),
        ],
    )
    def test_words_and_numbers_are_cut_as_the_settings_say(
        self, tmp_path: Path, digits: str, word: list[str], number: list[str]
    ) -> None:
        tokenizer = ByteTokenizer.load(scratch.digit_tokenizer(tmp_path, digits, largest=199))
        ids_N = tokenizer.encode(["Answer ####111"]).ids_N
        spelled = [tokenizer.token_bytes[id].decode() for id in ids_N]
        assert spelled == [*word, " ", "####", *number]

    def test_three_answers_in_ten_are_wrong_and_wrong_ones_are_spread(self) -> None:
        questions = questions_of(scratch.noisy_texts((range(30), range(10)), reads=20, seed=3))
        assert len(questions) == 300 * 20
        wrong = [q for q in questions if eval(q.prompt.partition("\n")[0]) != int(q.answer)]
        assert 0.27 < len(wrong) / len(questions) < 0.33
        assert len({question.answer for question in wrong}) > 30

    def test_texts_depend_on_the_seed_alone(self) -> None:
        numbers = range(30), range(10)
        texts = scratch.noisy_texts(numbers, reads=1, seed=3)
        assert texts == scratch.noisy_texts(numbers, reads=1, seed=3)
        assert texts != scratch.noisy_texts(numbers, reads=1, seed=4)


class TestWordProblems:
    """What is read by whom."""

    @staticmethod
    def _asked(texts: list[str]) -> set[str]:
        """The words of the questions: within a template numbers and names differ, these hardly."""
        lasts = [text.partition("? Give the result")[0].rpartition(". ")[2] for text in texts]
        return {" ".join(word for word in last.split() if word.islower()) for last in lasts}

    @staticmethod
    def _texts(source: dict[str, Any]) -> list[str]:
        return [json.loads(line)["text"] for line in Path(source["path"]).read_text().splitlines()]

    def test_heldout_templates_are_not_those_of_the_teacher(self) -> None:
        for_teacher, heldout = (
            pretrained.word_problems(200, seed=5, templates=templates)
            for templates in (pretrained.TRAINING_TEMPLATES, pretrained.HELDOUT_TEMPLATES)
        )
        for texts in (for_teacher, heldout):
            assert len(questions_of(texts)) == len(texts) == 200
        assert len(self._asked(for_teacher)) > 40
        assert not self._asked(for_teacher) & self._asked(heldout)

    def test_a_student_reads_each_of_its_templates_once_with_the_seeds_numbers(
        self, tmp_path: Path
    ) -> None:
        texts = [self._texts(pretrained.student_source(tmp_path, seed)) for seed in (0, 1)]
        for of_seed in texts:
            assert len(of_seed) == len(self._asked(of_seed)) == 12
        assert not {*texts[0]} & {*texts[1]}

    def test_new_numbers_are_of_the_students_templates_and_no_problem_of_a_student(
        self, tmp_path: Path
    ) -> None:
        numbers, templates = map(self._texts, pretrained.heldout_sources(tmp_path))
        read = [
            text
            for seed in range(3)
            for text in self._texts(pretrained.student_source(tmp_path, seed))
        ]
        assert not {*numbers} & {*read}
        asked = self._asked(read)
        assert sum(bool(self._asked([text]) & asked) for text in numbers) > 0.5 * len(numbers)
        assert not self._asked(templates) & asked

    def test_a_source_that_is_there_stays(self, tmp_path: Path) -> None:
        source = pretrained.student_source(tmp_path, 0)
        Path(source["path"]).write_text('{"text": "kept"}\n')
        assert pretrained.student_source(tmp_path, 0) == source
        assert self._texts(source) == ["kept"]


def _row(table: str, title: str) -> list[str]:
    """The cells of a line of a Markdown table, behind its title."""
    line = next(line for line in table.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line[1:-1].split("|")][1:]


def _result(method: str, seed: int, bits: float) -> dict[str, Any]:
    after = {"all": bits, "digits": None, "exact_match": 0.5, "num_questions": 2}
    after["agreement"] = {"sums": {"share": 0.25, "num_chunks": 4}}
    models = {
        "student before": after | {"all": 9.0},
        "teacher sums": {"all": 0.5, "digits": None, "exact_match": 1.0},
    }
    return {
        "setting": "packed",
        "method": method,
        "seed": seed,
        "models": models | {"student after": after},
    }


class TestTable:
    """Means and spreads over seeds, and gains by seed."""

    def test_gains_are_paired_by_seed(self) -> None:
        # The seeds differ by 1.0, the methods by 0.1 and 0.3 of the same seed.
        results = [
            _result(BASELINE, 0, 1.0),
            _result(BASELINE, 1, 2.0),
            _result("c_kl", 0, 0.9),
            _result("c_kl", 1, 1.7),
            _result("c_kl", 2, 5.0),  # no baseline of this seed
        ]
        told = markdown(results)
        assert told.startswith("Seeds: 2 to 3, ")
        bits, answers, agreement, gains = told.split("\n\n")[1:]
        assert _row(bits, "C-KL") == ["2.533 ± 2.173"]
        assert _row(bits, "teacher") == ["0.500"]
        assert _row(bits, "student before") == ["9.000"]
        assert _row(answers, "C-KL") == ["50.0% ± 0.0%"]
        assert _row(agreement, "C-KL") == ["25.0% ± 0.0%"]
        assert _row(gains, "C-KL") == ["+0.200 ± 0.141"]
        assert "| cross-entropy alone |" not in gains
        assert "GOLD" not in told

    def test_settings_stand_beside_each_other(self) -> None:
        other = _result("gold", 0, 3.0) | {"setting": "split"}
        told = markdown([_result(BASELINE, 0, 1.0), other])
        bits = told.split("\n\n")[1]
        assert bits.startswith("| bits per byte | packed | split |")
        assert _row(bits, "cross-entropy alone") == ["1.000", ""]
        assert _row(bits, "GOLD") == ["", "3.000"]

    def test_one_value_has_no_spread_and_none_is_a_dash(self) -> None:
        assert mean_and_spread([0.25], ".1%") == "25.0%"
        assert mean_and_spread([None], ".3f") == "-"

    def test_sources_have_tables_of_their_own(self) -> None:
        told = markdown(self._of_two_sources())
        numbers, templates = told.split("### ")[1:]
        assert numbers.startswith("numbers.jsonl\n\nSeeds: 1, in")
        assert templates.startswith("templates.jsonl\n\nSeeds: 1, in")
        for part, bits, gain in ((numbers, "0.900", "+0.100"), (templates, "1.900", "+0.100")):
            assert _row(part.partition("fewer")[0], "C-KL") == [bits]
            assert _row(part.rpartition("fewer")[2], "C-KL") == [gain]

    def test_a_setting_of_one_source_stands_apart(self) -> None:
        told = markdown([*self._of_two_sources(), _result("c_kl", 0, 5.0) | {"setting": "prose"}])
        assert told.count("### ") == 2
        assert "| bits per byte | prose |" in told
        assert told.count("| bits per byte | packed |") == 2

    def test_figures_are_written(self, tmp_path: Path) -> None:
        draw_answers([_result(BASELINE, 0, 1.0)], tmp_path / "answers.png")
        draw_gains(self._of_two_sources(), "numbers.jsonl", tmp_path / "gains.png")
        for name in ("answers.png", "gains.png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

    @staticmethod
    def _of_two_sources() -> list[dict[str, Any]]:
        """Of two methods 0.1 apart; the second source has one bit more throughout."""
        results = [_result(BASELINE, 0, 1.0), _result("c_kl", 0, 0.9)]
        for result in results:
            for name, model in result["models"].items():
                numbers = model | {"digits": model["all"]}
                templates = {key: numbers[key] + 1 for key in ("all", "digits")}
                sources = {"numbers.jsonl": numbers, "templates.jsonl": numbers | templates}
                result["models"][name] = model | {"sources": sources}
        return results


def _tables(text: str) -> list[str]:
    return [block for block in text.split("\n\n") if block.startswith("| ")]


def _title(table: str) -> str:
    return table.split("|")[1].strip()


def test_the_tables_of_the_results_page_are_those_of_the_committed_cells() -> None:
    results = sorted((ROOT / "docs" / "results").glob("*.jsonl"))
    printed = [table for path in results for table in _tables(markdown(read_results(path)))]
    printed = [table.strip() for table in printed]
    page = (ROOT / "docs" / "results.md").read_text()
    shown = [table for table in _tables(page) if _title(table) in map(_title, printed)]
    assert {path.name for path in results} == {"pretrained-small.jsonl", "scratch-small.jsonl"}
    assert len(shown) >= 5
    for table in shown:
        assert table in printed, f"not what `reproduce.py table` prints: {table}"
