"""Real vocabularies and a real teacher: SmolLM2-135M teaches its own body that reads another one.

`packed`: the student reads Llama-3's vocabulary, which has a token for `201`. `split`: Qwen3's,
with a token a digit, as the teacher. Both learn word problems from a teacher that was tuned on many
of them; the student gets 30, and is measured on templates that neither has seen. `prose`: Llama-3's
vocabulary and the teacher as it was published, on Python's language reference.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.cells import Cell, trained_model
from reproduction.methods import KINDS, METHODS
from xtoken_jax.config import merged
from xtoken_jax.files import replaced_file

_TEACHER = "asset:smollm2-135m"
_VOCABULARIES = {"packed": "asset:llama3", "split": "asset:qwen3", "prose": "asset:llama3"}
_HELDOUT_EVERY = 5  # of the templates


@dataclass(frozen=True)
class Budget:
    """How much is read."""

    teacher_steps: int
    student_steps: int
    batch_size: int
    """Rows of 384 tokens."""
    documents: int
    """Held-out texts to read."""
    questions: int
    """Held-out problems to answer; of few the tuned teacher itself answers none right."""


BUDGETS = {
    "small": Budget(teacher_steps=100, student_steps=30, batch_size=1, documents=12, questions=0),
    "full": Budget(teacher_steps=300, student_steps=90, batch_size=2, documents=48, questions=24),
}
_PROBLEMS_OF_STUDENT, _PROBLEMS_OF_TEACHER, _HELDOUT_PROBLEMS = 30, 1000, 60


def cells(directory: Path, budget: str, seeds: Sequence[int]) -> Iterator[Cell]:
    """All cells, a seed after the other, one method of each kind in all settings first.

    The teacher is tuned when it is needed.
    """
    size = BUDGETS[budget]
    # `prose` has no numerals, which the variants are about.
    variants = [name for name in METHODS if name not in KINDS]
    for seed in seeds:
        bases = {setting: _base(directory, size, setting, seed) for setting in _VOCABULARIES}
        for names, settings in ((KINDS, _VOCABULARIES), (variants, ("packed", "split"))):
            for setting in settings:
                for name in names:
                    config = METHODS[name].applied_to(bases[setting], "smollm2")
                    yield Cell(setting, name, seed, config)


def _base(directory: Path, size: Budget, setting: str, seed: int) -> dict[str, Any]:
    """The config of a setting and a seed, to which a method is applied."""
    if setting == "prose":
        teacher = _TEACHER
        train: dict[str, Any] = {"kind": "python_docs", "part": "train"}
        heldout: dict[str, Any] = {"kind": "python_docs", "part": "heldout"}
    else:
        teacher = str(_teacher(directory, size))
        train = _problems(directory, "student", _PROBLEMS_OF_STUDENT, seed=seed + 1)
        heldout = _problems(directory, "heldout", _HELDOUT_PROBLEMS, seed=1_000_003)
    return merged(
        _config(size, steps=size.student_steps, batch_size=size.batch_size),
        {
            "seed": seed,
            "student": {
                "model": _TEACHER,
                "tokenizer": _VOCABULARIES[setting],
                "dtype": "float32",
            },
            "teachers": {"smollm2": {"model": teacher, "dtype": "float32", "length": 448}},
            "data": {"train": [train]},
            "evaluation": {"sources": [heldout]},
        },
    )


def _teacher(directory: Path, size: Budget) -> Path:
    """SmolLM2, tuned with its own tokenizer on problems of the training templates."""
    config = merged(
        _config(size, steps=size.teacher_steps, batch_size=2),
        {
            "student": {"model": _TEACHER, "dtype": "float32"},
            "teachers": {},
            "data": {
                "train": [_problems(directory, "teacher", _PROBLEMS_OF_TEACHER, seed=2_000_003)]
            },
            "evaluation": {
                "sources": [_problems(directory, "heldout", _HELDOUT_PROBLEMS, seed=1_000_003)]
            },
        },
    )
    return trained_model(config, directory / "teacher")


def _config(size: Budget, *, steps: int, batch_size: int) -> dict[str, Any]:
    return {
        "data": {"batch_size": batch_size, "student_length": 384},
        "loss": {"block_tokens": 128},
        "optim": {"steps": steps, "learning_rate": 3e-4, "warmup_steps": 3},
        "checkpoint": {"every_steps": 1_000_000, "keep": 1},
        "evaluation": {
            "max_documents": size.documents,
            "batch_size": 4,
            "length": 384,
            "max_questions": size.questions,
            "max_new_tokens": 128,
        },
    }


def _problems(directory: Path, name: str, count: int, *, seed: int) -> dict[str, Any]:
    """A source of generated word problems: held-out templates, or the other ones."""
    path = directory / f"{name}-{seed}.jsonl"
    if not path.exists():
        texts = word_problems(count, seed=seed, heldout=name == "heldout")
        with replaced_file(path) as temporary:
            temporary.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return {"kind": "jsonl", "path": str(path)}


def word_problems(count: int, *, seed: int, heldout: bool) -> list[str]:
    """Problems of every fifth template of gsm_symbolic, or of all others."""
    import reasoning_gym

    problems = reasoning_gym.create_dataset("gsm_symbolic", size=8 * count, seed=seed)
    texts = []
    for problem, template in zip(problems, problems.task_indices, strict=True):
        if (template % _HELDOUT_EVERY == 0) == heldout and len(texts) < count:
            answer = problem["metadata"]["answer_cot"]
            texts.append(f"Question: {problem['question']}\nAnswer: {answer}")
    return texts
