"""What a run finds out about its models before the first step and after the last."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xtoken_jax.config import ExperimentConfig
from xtoken_jax.evaluate import (
    Answer,
    Question,
    Reading,
    answer_questions,
    bits_of,
    read_texts,
    top1_agreement,
)
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.processes import is_first, say
from xtoken_jax.text import ByteTokenizer
from xtoken_jax.train.metrics import write_text


class Evaluation:
    """Adds what it finds of each model to `evaluation.json` and `samples.jsonl` of the run.

    Args:
        config: The experiment.
        texts: To be read; none evaluates nothing.
        questions: To be answered.
        teachers: Models and their tokenizers, by name.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        texts: Sequence[str],
        questions: Sequence[Question],
        teachers: Mapping[str, tuple[Decoder, ByteTokenizer]],
    ) -> None:
        self._config = config
        self._results_path = Path(config.run_dir) / "evaluation.json"
        self._samples_path = Path(config.run_dir) / "samples.jsonl"
        self._texts = texts
        self._questions = questions
        self._teachers = teachers
        self._readings: dict[str, Reading] = {}

    def clear(self) -> None:
        """Forget what an earlier run in the same directory found."""
        if is_first():
            self._results_path.unlink(missing_ok=True)
            self._samples_path.unlink(missing_ok=True)

    def of_teachers(self) -> None:
        """Evaluate each teacher."""
        if self._texts:
            for name, (model, tokenizer) in self._teachers.items():
                result = bits_of(self._reading_of_teacher(name)).to_dict()
                self._finish(f"teacher {name}", result, self._answers(model, tokenizer))

    def of_student(self, name: str, model: Decoder, tokenizer: ByteTokenizer) -> None:
        """Evaluate the student, and how far it agrees with each teacher."""
        if not self._texts:
            return
        reading = self._read(model, tokenizer)
        result: dict[str, Any] = bits_of(reading).to_dict()
        if self._teachers:
            result["agreement"] = {
                teacher: top1_agreement(reading, self._reading_of_teacher(teacher)).to_dict()
                for teacher in self._teachers
            }
        self._finish(name, result, self._answers(model, tokenizer))

    def _read(self, model: Decoder, tokenizer: ByteTokenizer) -> Reading:
        settings = self._config.evaluation
        return read_texts(
            model,
            tokenizer,
            self._texts,
            batch_size=settings.batch_size,
            length=settings.length,
            block_tokens=self._config.loss.block_tokens,
        )

    def _reading_of_teacher(self, name: str) -> Reading:
        if name not in self._readings:
            self._readings[name] = self._read(*self._teachers[name])
        return self._readings[name]

    def _answers(self, model: Decoder, tokenizer: ByteTokenizer) -> list[Answer]:
        if not self._questions:
            return []
        settings = self._config.evaluation
        return answer_questions(
            model,
            tokenizer,
            self._questions,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
        )

    def _finish(self, name: str, result: dict[str, Any], answers: Sequence[Answer]) -> None:
        """Write what was found, and say it."""
        told = f"{name}: {result['all']:.3f} bits per byte"
        if answers:
            num_right = sum(answer.is_right for answer in answers)
            result |= {"exact_match": num_right / len(answers), "num_questions": len(answers)}
            told += f", {num_right} of {len(answers)} questions right"
        if is_first():
            results = {}
            if self._results_path.exists():
                results = json.loads(self._results_path.read_text())
            write_text(self._results_path, json.dumps({**results, name: result}, indent=1))
            if answers:
                self._add_samples(name, answers)
        say(told)

    def _add_samples(self, name: str, answers: Sequence[Answer]) -> None:
        lines = []
        if self._samples_path.exists():
            # A run that goes on may answer again what it had answered before.
            # Not `splitlines`, which would cut at characters such as U+2028 in what models wrote.
            written = self._samples_path.read_text(encoding="utf-8").split("\n")[:-1]
            lines = [line for line in written if json.loads(line)["model"] != name]
        samples = ({"model": name, **answer.to_dict()} for answer in answers)
        lines += [json.dumps(sample, ensure_ascii=False) for sample in samples]
        write_text(self._samples_path, "".join(f"{line}\n" for line in lines))
