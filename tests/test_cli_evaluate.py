"""`xtoken eval` and `xtoken generate`."""

import json

import pytest

from tests.commands import complaint, run
from tests.data.chat_sides import write_side
from tests.tiny import sentences, tiny_config, tiny_model
from xtoken_jax.evaluate import generate_texts
from xtoken_jax.evaluate.answers import final_number
from xtoken_jax.models.weights import load_model
from xtoken_jax.text import ByteTokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The files of a tiny experiment, which no test may change."""
    directory = tmp_path_factory.mktemp("cli")
    tiny_config(directory)
    (directory / "texts").mkdir()
    (directory / "texts" / "a.txt").write_text("\n\n".join(sentences(3)), encoding="utf-8")
    return directory


@pytest.fixture
def student(directory):
    return directory / "student-model"


@pytest.fixture
def teacher(directory):
    return directory / "teacher-model"


class TestEval:
    def test_json(self, student, directory):
        found = run("eval", "--model", student, "--text", f"{directory}/texts/*.txt", "--json")
        assert (found.code, found.err) == (0, "")
        result = json.loads(found.out)
        assert result.keys() == {"all", "digits", "num_bytes", "num_digit_bytes"}
        assert result["num_bytes"] == sum(len(text.encode()) for text in sentences(3))
        assert 1 < result["all"] < 20

    def test_agreement_with_a_teacher(self, student, teacher, directory):
        options = ("--text", f"{directory}/texts/*.txt", "--json", "--teacher")
        result = json.loads(run("eval", "--model", student, *options, teacher).out)
        agreement = result["agreement"][str(teacher)]
        assert 0 <= agreement["share"] < 0.5
        assert 20 < agreement["num_chunks"] < result["num_bytes"]
        result = json.loads(run("eval", "--model", student, *options, student).out)
        assert result["agreement"][str(student)]["share"] == 1

    def test_table_and_texts_without_digits(self, student, tmp_path):
        (tmp_path / "a.txt").write_text("apples")
        code, out, _ = run("eval", "--model", student, "--text", tmp_path / "a.txt")
        assert code == 0
        assert out.splitlines()[-2].split("│")[3].strip() == "-"

    def test_what_is_markup_and_emoji_to_rich_is_text_here(self, student, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "[red]:smile:").symlink_to(student)
        (tmp_path / "a.txt").write_text("apples")
        assert "│ [red]:smile: │" in run("eval", "--model", "[red]:smile:", "--text", "a.txt").out

    def test_no_paragraph_fits(self, student, directory):
        code, message = complaint(
            "eval", "--model", student, "--text", f"{directory}/heldout.txt", "--length", 3
        )
        assert (code, message) == (1, f"no paragraph of {directory}/heldout.txt fits in 3 tokens")

    def test_missing_text(self, student, tmp_path):
        code, message = complaint("eval", "--model", student, "--text", f"{tmp_path}/*.txt")
        assert code == 2
        assert f"nothing matches {tmp_path}/*.txt" in message


class TestQuestions:
    @pytest.fixture(autouse=True)
    def generator(self):
        pytest.importorskip("reasoning_gym", reason="the extra `quickstart` is not installed")

    def test_are_answered_and_read(self, student, tmp_path):
        options = ("--questions", 3, "--max-new-tokens", 4, "--json")
        found = run("eval", "--model", student, *options, "--samples", tmp_path / "samples.jsonl")
        assert (found.code, found.err) == (0, "")
        result = json.loads(found.out)
        assert result["num_questions"] == 3
        assert result["num_bytes"] > 3 * 100
        lines = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        samples = [json.loads(line) for line in lines]
        assert result["exact_match"] == sum(sample["is_right"] for sample in samples) / 3
        model, tokenizer = load_model(student), ByteTokenizer.load(student)
        prompts = [sample["prompt"] for sample in samples]
        texts = generate_texts(model, tokenizer, prompts, max_new_tokens=4, stop="\nQuestion:")
        assert [sample["text"] for sample in samples] == texts
        for sample in samples:
            assert sample["prompt"].startswith("Question: ")
            assert sample["prompt"].endswith("\nAnswer:")
            assert sample["is_right"] == (
                final_number(sample["text"]) == final_number(sample["answer"])
            )

    def test_texts_are_read_instead_where_given(self, student, directory):
        options = ("--text", f"{directory}/texts/*.txt", "--questions", 1, "--max-new-tokens", 2)
        found = run("eval", "--model", student, *options)
        assert found.code == 0
        assert "right answers" in found.out
        assert "of 1" in found.out

    def test_none_fits(self, student):
        code, message = complaint("eval", "--model", student, "--questions", 1, "--length", 9)
        assert (code, message) == (1, "no word problem fits in 9 tokens")


class TestGenerate:
    def test_json(self, student):
        prompts = ["Ann has 201 apples", "7"]
        found = run(
            "generate", "--model", student, "--prompt", *prompts, "--max-new-tokens", 5, "--json"
        )
        assert (found.code, found.err) == (0, "")
        model, tokenizer = load_model(student), ByteTokenizer.load(student)
        texts = generate_texts(model, tokenizer, prompts, max_new_tokens=5)
        assert json.loads(found.out) == [
            {"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)
        ]

    def test_text_follows_its_prompt(self, student):
        options = ("--max-new-tokens", 5, "--temperature", 2, "--top-p", 0.9)
        outs = [
            run("generate", "--model", student, "--prompt", "Ann has", *options, "--seed", seed).out
            for seed in (1, 1, 2)
        ]
        assert all(out.startswith("Ann has") for out in outs)
        assert outs[0] == outs[1] != outs[2]

    def test_chat_goes_through_the_template(self, tmp_path):
        side = write_side(tmp_path / "side", "qwen3")
        model_path = tiny_model(tmp_path / "model", packs_digits=True)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (model_path / file).write_text((side / file).read_text())
        options = ("--max-new-tokens", 5, "--json", "--chat")
        found = run("generate", "--model", model_path, "--prompt", "201?", *options)
        assert (found.code, found.err) == (0, "")
        (answer,) = json.loads(found.out)
        rendered = "<|im_start|>user\n201?<|im_end|>\n<|im_start|>assistant\n"
        model, tokenizer = load_model(model_path), ByteTokenizer.load(model_path)
        from xtoken_jax.evaluate import generate_from

        encoded = tokenizer.encode([rendered], parse_control=True)
        (text,) = generate_from(model, tokenizer, [encoded[0]], max_new_tokens=5)
        assert answer == {"prompt": "201?", "text": text}
        assert encoded[0][0] in tokenizer.roles

    def test_chat_without_a_template(self, student):
        code, message = complaint("generate", "--model", student, "--prompt", "a", "--chat")
        assert code == 2
        told = f"`--chat` needs a chat template beside the tokenizer, but {student} has none"
        assert message == told
