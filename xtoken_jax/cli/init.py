"""`xtoken init`."""

import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from xtoken_jax.cli.output import OUT
from xtoken_jax.errors import UsageError
from xtoken_jax.files import replaced_file
from xtoken_jax.text import ByteTokenizer, resolve, same_token_ids

if TYPE_CHECKING:
    from xtoken_jax.config.starter import StarterTeacher

_LOSS_NAMES = {"p_kl": "P-KL", "h_kl": "H-KL"}


@dataclass(frozen=True)
class Init:
    """Write a config for a student and its teachers, with the losses that suit them."""

    student: str
    """Model: local directory, `asset:NAME` or hub id."""
    teacher: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """Likewise; give it again for another."""
    tokenizer: str | None = None
    """Vocabulary that the student is to have instead of its own."""
    output: Path = Path("experiment.yaml")
    """The file; its name without `.yaml` names the run's directory in runs/."""
    force: bool = False
    """Replace the file where there is one."""

    def __call__(self) -> None:
        """Audit, write, and say what to do next."""
        self._check()
        import jax
        import yaml

        from xtoken_jax.config import check_config
        from xtoken_jax.config.starter import LARGE, SMALL, starter_config

        for option, model in (
            ("student", self.student),
            *(("teacher", teacher) for teacher in self.teacher),
        ):
            _check_model(option, model)
        student = ByteTokenizer.load(self.tokenizer or self.student)
        teachers = [_teacher(model, student) for model in self.teacher]
        text = starter_config(
            self.student,
            teachers,
            path=self.output,
            sizes=SMALL if jax.default_backend() == "cpu" else LARGE,
            tokenizer=self.tokenizer,
            has_problems=find_spec("reasoning_gym") is not None,
        )
        config = check_config(yaml.safe_load(text), name=str(self.output))
        with replaced_file(self.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
        for name, teacher in zip(config.teachers, teachers, strict=True):
            OUT.print(f"{name}: {_LOSS_NAMES[teacher.loss]}. {teacher.reason}", soft_wrap=True)
        file = shlex.quote(str(self.output))
        OUT.print(
            f"wrote {self.output}; `data.train` in it stands for your texts. Next:\n"
            f"  xtoken data {file}                        # what it trains on\n"
            f"  xtoken train {file}                       # train, into {config.run_dir}\n"
            f"  xtoken plan {file} --topology v5e:4x4     # what a step would take on TPUs",
            soft_wrap=True,
        )

    def _check(self) -> None:
        if not self.teacher:
            raise UsageError("`--teacher` must be given at least once")
        if self.output.is_dir():
            raise UsageError(f"`--output` must be a file, got the directory {self.output}")
        if self.output.exists() and not self.force:
            raise UsageError(f"{self.output} exists; choose another `--output`, or give `--force`")


def _check_model(option: str, model: str) -> None:
    """It must be a model that can be trained, which its config.json tells."""
    from xtoken_jax.models.architecture import Architecture
    from xtoken_jax.models.hf_directory import read_config

    directory = resolve(model, weights=False)
    if not (directory / "config.json").is_file():
        hint = "; `--tokenizer` gives a student another vocabulary" if option == "student" else ""
        raise UsageError(f"`--{option}` must be a model, got {model}, without config.json{hint}")
    Architecture.from_hf(read_config(directory))


def _teacher(model: str, student: ByteTokenizer) -> "StarterTeacher":
    from xtoken_jax.config.starter import StarterTeacher
    from xtoken_jax.data import python_docs
    from xtoken_jax.projection import audit, build_projection

    teacher = ByteTokenizer.load(model)
    texts = [document.text for document in islice(python_docs(), 50)]
    ratio = len(teacher.encode(texts).ids_N) / len(student.encode(texts).ids_N)
    if same_token_ids(student, teacher):
        reason = "The two have the same tokens, so that this is KL position by position."
        return StarterTeacher(model, "p_kl", reason, ratio)
    told = audit(student, teacher, build_projection(student, teacher))["recommendation"]
    return StarterTeacher(model, told["loss"], told["reason"], ratio)
