"""What a run's evaluation writes."""

import json

import pytest

from tests.tiny import sentences, tiny_config
from xtoken_jax.errors import XTokenError
from xtoken_jax.evaluate import Question, bits_per_byte, generate_texts, read_texts, top1_agreement
from xtoken_jax.models.weights import load_model
from xtoken_jax.text import ByteTokenizer
from xtoken_jax.train import setup
from xtoken_jax.train.evaluation import Evaluation, Heldout

TEXTS = sentences(3, seed=8)
QUESTIONS = [Question("7 + 4 =", "11"), Question("Ann has", "3")]
HELDOUT = [Heldout("sentences", TEXTS, QUESTIONS)]
OPTIONS = {"batch_size": 2, "length": 80, "block_tokens": 64}


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Student and teacher with their tokenizers, and the experiment's directory."""
    directory = tmp_path_factory.mktemp("tiny")
    tiny_config(directory)
    paths = [directory / f"{name}-model" for name in ("student", "teacher")]
    return [(load_model(path), ByteTokenizer.load(path)) for path in paths], directory


@pytest.fixture
def config(sides, tmp_path):
    settings = {"sources": [], "batch_size": 2, "length": 80, "max_new_tokens": 4}
    return tiny_config(
        sides[1],
        run_dir=str(tmp_path),
        evaluation=settings,
        loss={"block_tokens": 64},
    )


def test_what_is_found_is_added_by_name(sides, config, tmp_path):
    (student, teacher), _ = sides
    evaluation = Evaluation(config, HELDOUT, {"tiny": teacher})
    evaluation.of_student("student before", *student)
    evaluation.of_teachers()
    results = json.loads((tmp_path / "evaluation.json").read_text())
    assert list(results) == ["student before", "teacher tiny"]
    bits = [bits_per_byte(*side, TEXTS, **OPTIONS).to_dict() for side in (student, teacher)]
    agreement = top1_agreement(
        *(read_texts(*side, TEXTS, **OPTIONS) for side in (student, teacher))
    )
    before, of_teacher = results.values()
    assert before["agreement"] == {"tiny": agreement.to_dict()}
    assert before.items() >= bits[0].items()
    assert of_teacher.items() >= bits[1].items()
    assert before["num_questions"] == of_teacher["num_questions"] == 2


def test_sources_are_told_apart_and_counted_together(sides, config, tmp_path):
    (student, teacher), _ = sides
    parts = {"words": TEXTS[:1], "numbers": ["1 2 3 4 5", *TEXTS[1:]]}
    asked = {"words": [], "numbers": QUESTIONS}
    heldout = [Heldout(title, texts, asked[title]) for title, texts in parts.items()]
    evaluation = Evaluation(config, heldout, {"tiny": teacher})
    evaluation.of_student("student before", *student)
    evaluation.of_teachers()
    before, of_teacher = json.loads((tmp_path / "evaluation.json").read_text()).values()
    for result, side in ((before, student), (of_teacher, teacher)):
        # Not exactly, as texts of two sources share no batch.
        found = bits_per_byte(*side, [*parts["words"], *parts["numbers"]], **OPTIONS).to_dict()
        assert {name: result[name] for name in found} == pytest.approx(found, rel=1e-6)
        assert list(result["sources"]) == ["words", "numbers"]
        for title, texts in parts.items():
            part = bits_per_byte(*side, texts, **OPTIONS).to_dict()
            assert result["sources"][title].items() >= part.items()
        assert "num_questions" not in result["sources"]["words"]
        assert result["num_questions"] == result["sources"]["numbers"]["num_questions"] == 2
    agreements = [of["agreement"]["tiny"] for of in before["sources"].values()]
    num_chunks = [each["num_chunks"] for each in agreements]
    same = sum(each["share"] * each["num_chunks"] for each in agreements)
    assert before["agreement"]["tiny"]["num_chunks"] == sum(num_chunks)
    assert before["agreement"]["tiny"]["share"] == pytest.approx(same / sum(num_chunks))


def test_answers_are_kept_once_for_each_model(sides, config, tmp_path):
    (student, teacher), _ = sides
    evaluation = Evaluation(config, HELDOUT, {})
    for name, side in (("a", student), ("b", teacher), ("a", student)):
        evaluation.of_student(name, *side)
    lines = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    assert [sample["model"] for sample in samples] == ["b", "b", "a", "a"]
    prompts = [question.prompt for question in QUESTIONS]
    texts = generate_texts(*student, prompts, max_new_tokens=4)
    assert [sample["text"] for sample in samples[2:]] == texts
    assert "agreement" not in json.loads((tmp_path / "evaluation.json").read_text())["a"]
    evaluation.clear()
    assert list(tmp_path.iterdir()) == []


def test_answers_of_other_models_stay_as_they_are(sides, config, tmp_path):
    (student, _), _ = sides
    written = '{"model": "b", "text": "one line\u2028or two\x85?"}\n'
    (tmp_path / "samples.jsonl").write_text(written, encoding="utf-8")
    Evaluation(config, HELDOUT, {}).of_student("a", *student)
    assert (tmp_path / "samples.jsonl").read_text(encoding="utf-8").startswith(written)


def test_without_texts_there_is_nothing(sides, config, tmp_path):
    (student, teacher), _ = sides
    evaluation = Evaluation(config, [], {"tiny": teacher})
    evaluation.of_student("student before", *student)
    evaluation.of_teachers()
    assert list(tmp_path.iterdir()) == []


class TestHeldout:
    @pytest.fixture(autouse=True)
    def generator(self):
        pytest.importorskip("reasoning_gym", reason="the extra `quickstart` is not installed")

    def heldout(self, directory, **settings):
        sources = [
            {"kind": "gsm_symbolic", "size": 5},
            {"kind": "jsonl", "path": f"{directory}/train.jsonl"},
        ]
        config = tiny_config(directory, evaluation={"sources": sources, **settings})
        return setup.heldout(config, setup.load_tokenizers(config))

    def test_questions_are_of_word_problems_alone(self, sides):
        problems, sentences = self.heldout(sides[1], length=1000, max_documents=3, max_questions=4)
        assert [problems.title, sentences.title] == ["gsm_symbolic", "train.jsonl"]
        assert len(problems.texts) == len(sentences.texts) == 3
        assert len(problems.questions) == 4
        assert sentences.questions == []
        for question, text in zip(problems.questions[:3], problems.texts, strict=True):
            assert text.startswith(question.prompt)

    def test_none_are_answered_by_default(self, sides):
        assert [source.questions for source in self.heldout(sides[1], length=1000)] == [[], []]

    def test_sources_of_one_name_are_numbered(self, sides, tmp_path):
        sources = [{"kind": "jsonl", "path": f"{sides[1]}/train.jsonl"}] * 3
        config = tiny_config(sides[1], evaluation={"sources": sources, "length": 1000})
        found = setup.heldout(config, setup.load_tokenizers(config))
        titles = ["train.jsonl", "train.jsonl (2)", "train.jsonl (3)"]
        assert [source.title for source in found] == titles

    def test_texts_that_do_not_fit(self, sides):
        message = r"text of gsm_symbolic fits in `evaluation\.length` 3 tokens"
        with pytest.raises(XTokenError, match=message):
            self.heldout(sides[1], length=3)
