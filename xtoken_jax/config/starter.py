"""A first config, with comments, for a user who has named a student and its teachers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class StarterTeacher:
    """A teacher as it is to stand in the config.

    Attributes:
        model: Local directory, `asset:NAME` or hub id.
        loss: `kind` of its loss.
        reason: Why that loss, in a sentence or two.
        token_ratio: Its tokens of a text, over the student's.
    """

    model: str
    loss: str
    reason: str
    token_ratio: float


@dataclass(frozen=True)
class StarterSizes:
    """What depends on the machine."""

    dtype: str
    batch_size: int
    student_length: int
    block_tokens: int
    steps: int


SMALL = StarterSizes("float32", batch_size=4, student_length=256, block_tokens=256, steps=50)
LARGE = StarterSizes("bfloat16", batch_size=8, student_length=1024, block_tokens=4096, steps=1000)


def starter_config(
    student: str,
    teachers: Sequence[StarterTeacher],
    *,
    path: Path,
    sizes: StarterSizes,
    tokenizer: str | None = None,
    has_problems: bool = True,
) -> str:
    """The YAML text of a config that trains as it is, on texts that a user will replace.

    Args:
        student: Local directory, `asset:NAME` or hub id of the student.
        teachers: In the order given; each gets a name from its model's.
        path: Where the text is to be written; its stem names the run.
        sizes: Of batches and of the run.
        tokenizer: Vocabulary that the student is to have instead of its own.
        has_problems: Whether word problems can be generated here (the extra `quickstart`).
    """
    return "\n".join(
        [
            _header(student, teachers, path),
            f"run_dir: {_scalar(f'runs/{path.stem}')}",
            _student(student, tokenizer, sizes),
            "teachers:",
            *(
                _teacher(name, teacher, sizes)
                for name, teacher in zip(_names(teachers), teachers, strict=True)
            ),
            _data(sizes, has_problems=has_problems),
            _training(sizes, num_teachers=len(teachers)),
            _evaluation(sizes, has_problems=has_problems),
        ]
    )


def _header(student: str, teachers: Sequence[StarterTeacher], path: Path) -> str:
    names = " and ".join(teacher.model for teacher in teachers)
    return f"""\
# {_line(student)} learns from {_line(names)}. Begun by `xtoken init`.
#
#   xtoken data {_line(str(path))}     shows what it trains on
#   xtoken train {_line(str(path))}    trains, or goes on from the last checkpoint
#
# What is not here has its default; docs/config.md and `xtoken train --help` list every field."""


def _student(student: str, tokenizer: str | None, sizes: StarterSizes) -> str:
    lines = ["student:", f"  model: {_scalar(student)}"]
    if tokenizer is not None:
        lines += [
            "  # The vocabulary that the model gets before the first step, instead of its own.",
            f"  tokenizer: {_scalar(tokenizer)}",
        ]
    told = "a GPU or TPU takes bfloat16" if sizes.dtype == "float32" else "float32 on a CPU"
    return "\n".join([*lines, f"  dtype: {sizes.dtype}  # of activations; {told}"])


def _teacher(name: str, teacher: StarterTeacher, sizes: StarterSizes) -> str:
    # A tenth more than on the text that was measured, in steps that split well.
    needed = sizes.student_length * max(1.0, 1.1 * teacher.token_ratio)
    other = "  # or c_kl, which teaches packed numbers whole: docs/results.md"
    return f"""\
  {_scalar(name)}:
    model: {_scalar(teacher.model)}
    dtype: {sizes.dtype}
    # Its tokens a row: of prose it makes {teacher.token_ratio:.2f} for each of the student's.
    length: {-(-int(needed) // 64) * 64}
    loss:
      # {_line(teacher.reason)}
      kind: {teacher.loss}{other if teacher.loss == "p_kl" else ""}"""


def _data(sizes: StarterSizes, *, has_problems: bool) -> str:
    problems = "    - {kind: gsm_symbolic, size: 2000, seed: 1}\n" if has_problems else ""
    return f"""\
data:
  # PUT YOUR TEXTS HERE. These sources are generated, so that the run works as it is; for example:
  #   - {{kind: jsonl, path: "texts/*.jsonl"}}                    lines of {{"text": ...}}
  #   - {{kind: jsonl, path: "chats/*.jsonl", format: messages}}  lines of {{"messages": [...]}}
  #   - {{kind: text, path: "texts/**/*.txt"}}
  # docs/data.md has the others: completions, Parquet, Hugging Face data sets, mixtures.
  train:
{problems}    - {{kind: python_docs, max_bytes: 600, part: train}}
  batch_size: {sizes.batch_size}
  student_length: {sizes.student_length}  # the student's tokens a row"""


def _training(sizes: StarterSizes, *, num_teachers: int) -> str:
    several = "\n  combine: sum  # or `trust`, by how sure each teacher is of a batch; or `select`"
    return f"""\
loss:
  scaling: dynamic  # brings the teachers' loss to the size of cross-entropy, at every step\
{several if num_teachers > 1 else ""}
  block_tokens: {sizes.block_tokens}  # positions whose logits exist at once; fewer need less memory
optim:
  steps: {sizes.steps}
  learning_rate: 1.0e-4
  warmup_steps: {sizes.steps // 10}
checkpoint:
  every_steps: {sizes.steps // 5}
# mesh: {{fsdp: 8}}  # over 8 devices; see docs/scale.md"""


def _evaluation(sizes: StarterSizes, *, has_problems: bool) -> str:
    problems = """
    - {kind: gsm_symbolic, size: 32, seed: 1000003}"""
    questions = """
  max_questions: 8  # word problems that each model answers
  max_new_tokens: 128"""
    return f"""\
evaluation:
  # Held-out texts, which must not be among those above.
  sources:{problems if has_problems else ""}
    - {{kind: python_docs, max_bytes: 600, part: heldout}}
  max_documents: 32  # of each source
  batch_size: {sizes.batch_size}
  length: {max(512, sizes.student_length)}{questions if has_problems else ""}
"""


def _names(teachers: Sequence[StarterTeacher]) -> list[str]:
    """A name for each, from the end of what its model is called."""
    names: list[str] = []
    for teacher in teachers:
        last = re.split(r"[/:\\]", teacher.model.rstrip("/\\"))[-1]
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-_.") or "teacher"
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names


def _scalar(text: str) -> str:
    """A text as YAML, in quotation marks where it needs them."""
    return yaml.safe_dump([text], width=float("inf"), allow_unicode=True)[2:].rstrip()


def _line(text: str) -> str:
    """A text in a comment, which ends with its line."""
    return " ".join(text.split())
