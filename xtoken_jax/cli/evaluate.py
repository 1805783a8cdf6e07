"""`xtoken eval`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xtoken_jax.cli.compilation import use_compilation_cache
from xtoken_jax.cli.output import OUT, print_json
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.files import replaced_file
from xtoken_jax.text import ByteTokenizer, resolve

if TYPE_CHECKING:
    from xtoken_jax.evaluate import Question, Reading

_BLOCK_TOKENS = 512


@dataclass(frozen=True)
class Eval:
    """Measure bits per byte, exact match on word problems, agreement with a teacher."""

    model: str
    """Local directory, `asset:NAME` or hub id."""
    text: str | None = None
    """Glob of UTF-8 files; paragraphs are read one by one."""
    questions: int = 0
    """Generated word problems that are answered, greedily; without `--text` they are read too."""
    teacher: str | None = None
    """Model with which the top-1 agreement on what is read is measured."""
    max_texts: int = 64
    """Texts read, the first ones."""
    length: int = 512
    """Longest text, in tokens; longer ones are left out."""
    batch_size: int = 8
    """Texts at a time."""
    max_new_tokens: int = 256
    """Of an answer."""
    seed: int = 1000003
    """Of the word problems."""
    samples: Path | None = None
    """Write the answers there, as JSON lines."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        """Evaluate and print."""
        from xtoken_jax.evaluate import answer_questions, bits_of, top1_agreement
        from xtoken_jax.models.weights import load_model

        self._check()
        questions, texts = self._questions()
        names = [self.model] if self.teacher is None else [self.model, self.teacher]
        tokenizers = {name: ByteTokenizer.load(name) for name in names}
        texts = self._fitting(texts, list(tokenizers.values()))
        use_compilation_cache()
        readings: list[Reading] = []
        result: dict[str, Any] = {}
        for name in names:
            model, tokenizer = load_model(resolve(name)), tokenizers[name]
            readings.append(self._read(model, tokenizer, texts))
            if name == self.model:
                result = bits_of(readings[0]).to_dict()
            if name == self.model and questions:
                answers = answer_questions(
                    model,
                    tokenizer,
                    questions,
                    max_new_tokens=self.max_new_tokens,
                    batch_size=self.batch_size,
                )
                num_right = sum(answer.is_right for answer in answers)
                result["exact_match"] = num_right / len(answers)
                result["num_questions"] = len(answers)
                self._write([answer.to_dict() for answer in answers])
            del model  # before the next is loaded
        if self.teacher is not None:
            result["agreement"] = {self.teacher: top1_agreement(*readings).to_dict()}
        if self.json:
            print_json(result)
        else:
            from xtoken_jax.report import evaluation_table

            OUT.print(evaluation_table({self.model: result}))

    def _check(self) -> None:
        for name in ("max_texts", "length", "batch_size", "max_new_tokens"):
            if (value := getattr(self, name)) < 1:
                option = name.replace("_", "-")
                raise UsageError(f"`--{option}` must be at least 1, got {value}")
        if self.questions < 0:
            raise UsageError(f"`--questions` must be at least 0, got {self.questions}")
        if self.text is None and not self.questions:
            raise UsageError("give `--text`, `--questions` or both")
        if self.samples is not None and not self.questions:
            raise UsageError("`--samples` needs `--questions`")

    def _questions(self) -> tuple[list["Question"], list[str]]:
        """What is answered, and what is read."""
        from xtoken_jax.data import documents_of, gsm_symbolic, text_files
        from xtoken_jax.evaluate import questions_of

        problems = []
        if self.questions:
            problems = [p.text for p in gsm_symbolic(self.questions, seed=self.seed)]
        if self.text is None:
            return questions_of(problems), problems
        documents = documents_of(text_files(self.text))
        paragraphs = [p for d in documents for p in d.text.split("\n\n") if p.strip()]
        return questions_of(problems), paragraphs

    def _fitting(self, texts: list[str], tokenizers: list[ByteTokenizer]) -> list[str]:
        from xtoken_jax.evaluate import fitting_texts

        fitting = fitting_texts(texts, tokenizers, length=self.length)[: self.max_texts]
        if not fitting:
            source = "word problem" if self.text is None else f"paragraph of {self.text}"
            raise XTokenError(f"no {source} fits in {self.length} tokens")
        return fitting

    def _read(self, model: Any, tokenizer: ByteTokenizer, texts: list[str]) -> "Reading":
        from xtoken_jax.evaluate import read_texts

        return read_texts(
            model,
            tokenizer,
            texts,
            batch_size=self.batch_size,
            length=self.length,
            block_tokens=_BLOCK_TOKENS,
        )

    def _write(self, samples: list[dict[str, Any]]) -> None:
        if self.samples is not None:
            lines = (json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
            with replaced_file(self.samples) as temporary:
                temporary.write_text("".join(lines), encoding="utf-8")
