"""Real vocabularies and a real teacher: SmolLM2-135M teaches its own body that reads another one.

`packed`: the student reads Llama-3's vocabulary, which has a token for `201`. `split`: Qwen3's,
with a token a digit, as the teacher. Both learn word problems from a teacher that was tuned on many
of them; the student gets 12, each of a template of its own, and is measured on other numbers in the
same templates, which the teacher knows and 12 problems do not tell, and on templates that neither
has seen. `prose`: Llama-3's vocabulary and the teacher as it was published, on Python's language
reference.
"""

import json
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reproduction.cells import Cell, trained_model
from reproduction.methods import KINDS, METHODS
from xtoken_jax.config import merged
from xtoken_jax.files import replaced_file

_TEACHER = "asset:smollm2-135m"
_VOCABULARIES = {"packed": "asset:llama3", "split": "asset:qwen3", "prose": "asset:llama3"}
# Of gsm_symbolic, which numbers its templates from 0 to 99.
HELDOUT_TEMPLATES = frozenset(range(0, 100, 5))
TRAINING_TEMPLATES = frozenset(range(100)) - HELDOUT_TEMPLATES
STUDENT_TEMPLATES = frozenset(sorted(TRAINING_TEMPLATES)[:12])
NEW_NUMBERS, NEW_TEMPLATES = "new-numbers.jsonl", "new-templates.jsonl"


@dataclass(frozen=True)
class Budget:
    """How much is read."""

    teacher_steps: int
    student_steps: int
    batch_size: int
    """Rows of 384 tokens."""
    documents: int
    """Held-out texts to read, of each of the two sources."""
    questions: int
    """Held-out problems to answer, likewise; of few the tuned teacher itself answers none right."""


BUDGETS = {
    "small": Budget(teacher_steps=100, student_steps=30, batch_size=1, documents=16, questions=0),
    "full": Budget(teacher_steps=300, student_steps=90, batch_size=2, documents=48, questions=24),
}
_PROBLEMS_OF_TEACHER = 1000


def cells(directory: Path, budget: str, seeds: Sequence[int]) -> Iterator[Cell]:
    """All cells: one method of each kind in all settings with all seeds, then the variants.

    The teacher is tuned when it is needed.
    """
    size = BUDGETS[budget]
    # `prose` has no numerals, which the variants are about.
    variants = [name for name in METHODS if name not in KINDS]
    for names, settings in ((KINDS, _VOCABULARIES), (variants, ("packed", "split"))):
        for seed in seeds:
            for setting in settings:
                for name in names:
                    config = partial(_cell_config, directory, size, setting, name, seed)
                    yield Cell(setting, name, seed, config)


def _cell_config(
    directory: Path, size: Budget, setting: str, method: str, seed: int
) -> dict[str, Any]:
    """The config of a cell; makes its sources, and its teacher."""
    if setting == "prose":
        teacher = _TEACHER
        train: dict[str, Any] = {"kind": "python_docs", "part": "train"}
        heldout: list[dict[str, Any]] = [{"kind": "python_docs", "part": "heldout"}]
    else:
        teacher = str(_teacher(directory, size))
        train = student_source(directory, seed)
        heldout = heldout_sources(directory)
    config = merged(
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
            "evaluation": {"sources": heldout},
        },
    )
    return METHODS[method].applied_to(config, "smollm2")


def _teacher(directory: Path, size: Budget) -> Path:
    """SmolLM2, tuned with its own tokenizer on problems of the training templates."""
    texts = partial(
        word_problems, _PROBLEMS_OF_TEACHER, seed=2_000_003, templates=TRAINING_TEMPLATES
    )
    config = merged(
        _config(size, steps=size.teacher_steps, batch_size=2),
        {
            "student": {"model": _TEACHER, "dtype": "float32"},
            "teachers": {},
            "data": {"train": [_source(directory / "teacher.jsonl", texts)]},
            "evaluation": {"sources": heldout_sources(directory)},
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
            "length": 256,
            "max_questions": size.questions,
            "max_new_tokens": 128,
        },
    }


def student_source(directory: Path, seed: int) -> dict[str, Any]:
    """A problem of each of the student's templates; the seed chooses their numbers."""
    texts = partial(
        word_problems,
        len(STUDENT_TEMPLATES),
        seed=seed + 1,
        templates=STUDENT_TEMPLATES,
        at_most=1,
    )
    return _source(directory / f"student-{seed}.jsonl", texts)


def heldout_sources(directory: Path) -> list[dict[str, Any]]:
    """New numbers in the student's templates, and new templates; the same for all seeds."""
    sources = ((NEW_NUMBERS, STUDENT_TEMPLATES), (NEW_TEMPLATES, HELDOUT_TEMPLATES))
    return [
        _source(
            directory / name,
            # More than are read, as some are longer than what an evaluation takes.
            partial(word_problems, 100, seed=1_000_003, templates=templates),
        )
        for name, templates in sources
    ]


def _source(path: Path, texts: Callable[[], Sequence[str]]) -> dict[str, Any]:
    """A source of texts, which are made unless they are there."""
    if not path.exists():
        with replaced_file(path) as temporary:
            temporary.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts()))
    return {"kind": "jsonl", "path": str(path)}


def word_problems(
    count: int, *, seed: int, templates: Container[int], at_most: int | None = None
) -> list[str]:
    """Problems of gsm_symbolic with their answers.

    Args:
        count: So many in all.
        seed: Of the generator.
        templates: Of which they are.
        at_most: So many of one template.
    """
    import reasoning_gym

    problems: Any = reasoning_gym.create_dataset("gsm_symbolic", size=1000 + 100 * count, seed=seed)
    texts: list[str] = []
    drawn: Counter[int] = Counter()
    for index, template in enumerate(problems.task_indices):
        if template not in templates or drawn[template] == at_most:
            continue
        drawn[template] += 1
        problem = problems[index]
        answer = problem["metadata"]["answer_cot"]
        texts.append(f"Question: {problem['question']}\nAnswer: {answer}")
        if len(texts) == count:
            break
    return texts
