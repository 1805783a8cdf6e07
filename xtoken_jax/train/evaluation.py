"""What a run finds out about its models before the first step and after the last."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtoken_jax.config import ExperimentConfig
from xtoken_jax.evaluate import (
    Agreement,
    Answer,
    BitsPerByte,
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


@dataclass(frozen=True)
class Heldout:
    """What a source holds for evaluation.

    Attributes:
        title: Names the source among the others.
        texts: To be read, at least one.
        questions: To be answered, maybe none.
    """

    title: str
    texts: Sequence[str]
    questions: Sequence[Question]


class Evaluation:
    """Adds what it finds of each model to `evaluation.json` and `samples.jsonl` of the run.

    A model's result is of all sources together; where there are several, each has its own under
    `sources`.

    Args:
        config: The experiment.
        heldout: The sources; none evaluates nothing.
        teachers: Models and their tokenizers, by name.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        heldout: Sequence[Heldout],
        teachers: Mapping[str, tuple[Decoder, ByteTokenizer]],
    ) -> None:
        self._config = config
        self._results_path = Path(config.run_dir) / "evaluation.json"
        self._samples_path = Path(config.run_dir) / "samples.jsonl"
        self._heldout = heldout
        self._teachers = teachers
        self._readings: dict[str, list[Reading]] = {}

    def clear(self) -> None:
        """Forget what an earlier run in the same directory found."""
        if is_first():
            self._results_path.unlink(missing_ok=True)
            self._samples_path.unlink(missing_ok=True)

    def of_teachers(self) -> None:
        """Evaluate each teacher."""
        if self._heldout:
            for name, (model, tokenizer) in self._teachers.items():
                found = _Found(
                    [bits_of(reading) for reading in self._readings_of_teacher(name)],
                    {},
                    self._answers(model, tokenizer),
                )
                self._finish(f"teacher {name}", found)

    def of_student(self, name: str, model: Decoder, tokenizer: ByteTokenizer) -> None:
        """Evaluate the student, and how far it agrees with each teacher."""
        if not self._heldout:
            return
        readings = self._read(model, tokenizer)
        agreements = {
            teacher: list(map(top1_agreement, readings, self._readings_of_teacher(teacher)))
            for teacher in self._teachers
        }
        bits = [bits_of(reading) for reading in readings]
        self._finish(name, _Found(bits, agreements, self._answers(model, tokenizer)))

    def _read(self, model: Decoder, tokenizer: ByteTokenizer) -> list[Reading]:
        settings = self._config.evaluation
        return [
            read_texts(
                model,
                tokenizer,
                source.texts,
                batch_size=settings.batch_size,
                length=settings.length,
                block_tokens=self._config.loss.block_tokens,
            )
            for source in self._heldout
        ]

    def _readings_of_teacher(self, name: str) -> list[Reading]:
        if name not in self._readings:
            self._readings[name] = self._read(*self._teachers[name])
        return self._readings[name]

    def _answers(self, model: Decoder, tokenizer: ByteTokenizer) -> list[list[Answer]]:
        settings = self._config.evaluation
        options = {"max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch_size}
        return [
            answer_questions(model, tokenizer, source.questions, **options)
            if source.questions
            else []
            for source in self._heldout
        ]

    def _finish(self, name: str, found: "_Found") -> None:
        """Write what was found, and say it."""
        result = found.in_all()
        if len(self._heldout) > 1:
            titles = [source.title for source in self._heldout]
            result["sources"] = dict(zip(titles, found.by_source(), strict=True))
        told = f"{name}: {result['all']:.3f} bits per byte"
        answers = found.all_answers
        if answers:
            num_right = sum(answer.is_right for answer in answers)
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


@dataclass(frozen=True)
class _Found:
    """What was found of a model, a value of each list for a source."""

    bits: Sequence[BitsPerByte]
    agreements: Mapping[str, Sequence[Agreement]]
    answers: Sequence[Sequence[Answer]]

    @property
    def all_answers(self) -> list[Answer]:
        """A source's after the other's."""
        return [answer for of_source in self.answers for answer in of_source]

    def in_all(self) -> dict[str, Any]:
        """Of all sources together, as plain values."""
        agreements = {name: Agreement.total(parts) for name, parts in self.agreements.items()}
        return _record(BitsPerByte.total(self.bits), agreements, self.all_answers)

    def by_source(self) -> list[dict[str, Any]]:
        """Of each source."""
        return [
            _record(bits, {name: parts[index] for name, parts in self.agreements.items()}, answers)
            for index, (bits, answers) in enumerate(zip(self.bits, self.answers, strict=True))
        ]


def _record(
    bits: BitsPerByte, agreements: Mapping[str, Agreement], answers: Sequence[Answer]
) -> dict[str, Any]:
    record: dict[str, Any] = bits.to_dict()
    if agreements:
        record["agreement"] = {name: each.to_dict() for name, each in agreements.items()}
    if answers:
        record["exact_match"] = sum(answer.is_right for answer in answers) / len(answers)
        record["num_questions"] = len(answers)
    return record
