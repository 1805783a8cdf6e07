"""Runs the commands that README and docs/ show, in a scratch directory with tiny stand-ins.

A command is a line of a block of bash or console, or a whole command between backquotes. Those with
a placeholder (`CONFIG`, `FILE`) or without arguments are forms: tests/test_docs_commands.py holds
their options to the programs' own. What cannot run here is in `NOT_RUN`, with its reason.

    python scripts/check_docs.py            # about three minutes; --long for the quickstart too
    python scripts/check_docs.py --list     # what would run, and what not
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
SECONDS = 1800  # a command may take

# Beginnings of commands that are not run, and why.
NOT_RUN = {
    "bash scripts/test.sh": "the tests themselves",
    "bash scripts/check_docs.sh": "this script",
    "bash scripts/quickstart.sh": "minutes, and into the repository's own .venv",
    "python scripts/bench_": "minutes to hours; a measurement wants a quiet machine",
    "python scripts/reproduce.py": "an hour and more; tests/test_reproduce.py tests its parts",
    "xtoken report runs/reproduce": "pages of runs that scripts/reproduce.py makes",
    "scripts/crash_test.py": "minutes; tests/train kills runs too",
    "xtoken plan configs/llama1b_": "minutes of TPU's compiler; tests/train/test_plan.py plans",
    "xtoken train configs/quickstart.yaml --": "minutes, in a directory of another config",
    "pip install": "would change the environment",
    "python -m pip download": "what fetching an asset does; tests/text/test_assets.py",
    "lm-eval": "needs lm-eval, and the hub for its tasks; docs/export.md says what was run by hand",
    "vllm": "needs a GPU",
    "pre-commit install": "would change the repository's hooks",
    "source .venv": "a shell's own command",
    "ruff": "part of scripts/test.sh",
    "pyright": "part of scripts/test.sh",
    "pytest": "part of scripts/test.sh",
}
# With --long only. Otherwise a run of tiny models stands in for the quickstart's.
QUICKSTART = "xtoken train configs/quickstart.yaml"

_BLOCK = re.compile(r"^```(bash|console)\n(.*?)^```", re.S | re.M)
_SPAN = re.compile(r"`([^`\n]+)`")
_INDENTED = re.compile(r"^    (xtoken .*)$", re.M)
_VARIABLES = re.compile(r"([A-Z_]+=\S+ )*")
_PROGRAM = re.compile(
    r"([A-Z_]+=\S+ )*"
    r"(xtoken [a-z]|python (-m|scripts/)|bash scripts/|scripts/\w+\.\w+ |pip install )"
)
_PLACEHOLDER = re.compile(r"\.\.\.|\[|\b[A-Z_]{2,}\b|\b[A-Z]\b")


@dataclass(frozen=True)
class Command:
    """A command as a page shows it."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} `{self.text}`"

    @property
    def words(self) -> list[str]:
        """Without what a comment says."""
        return shlex.split(self.text, comments=True)

    @property
    def is_form(self) -> bool:
        """Whether something must be filled in before it can run."""
        unquoted = re.sub(r"\"[^\"]*\"|'[^']*'|[A-Z_]+=", "", self.text.partition("#")[0])
        bare = all(word.startswith("-") for word in self.words[2:])
        return bool(_PLACEHOLDER.search(unquoted)) or (self.words[0] == "xtoken" and bare)

    def reason(self, *, long: bool = False) -> str | None:
        """Why it is not run; None if it is."""
        text = self.text[_VARIABLES.match(self.text).end() :]
        for start, reason in NOT_RUN.items():
            if text.startswith(start):
                return reason
        if text == QUICKSTART and not long:
            return "minutes; --long runs it"
        return "a form; its options are tested" if self.is_form else None


def commands() -> list[Command]:
    """Every command of the pages, in their order."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        places = [(match.start(1), match[1]) for match in _INDENTED.finditer(text)]
        for block in _BLOCK.finditer(text):
            places += _lines(block[2], block.start(2), prompted=block[1] == "console")
        outside = re.sub(r"^```.*?^```", lambda m: " " * len(m[0]), text, flags=re.S | re.M)
        spans = ((span.start(1), span[1]) for span in _SPAN.finditer(outside))
        places += [(at, span) for at, span in spans if _PROGRAM.match(span)]
        name = str(page.relative_to(REPOSITORY))
        found += [
            Command(name, text.count("\n", 0, at) + 1, command) for at, command in sorted(places)
        ]
    return found


def _lines(block: str, start: int, *, prompted: bool) -> list[tuple[int, str]]:
    lines = []
    for line in block.splitlines(keepends=True):
        command = line.strip()
        if prompted:
            command = command.removeprefix("$ ") if line.startswith("$ ") else ""
        if command and not command.startswith("#"):
            lines.append((start, command))
        start += len(line)
    return lines


def prepare_scratch(directory: Path) -> None:
    """What the pages take for granted: a config, a prepared corpus, a finished run, texts."""
    import yaml

    from tests.tiny import sentences, tiny_config
    from xtoken_jax.config import to_dict

    config = to_dict(tiny_config(directory / "tiny"))
    config |= {"run_dir": "runs/mine"}
    config["data"]["prepared"] = "prepared/mine"
    (directory / "configs").mkdir()
    (directory / "configs/mine.yaml").write_text(yaml.safe_dump(config))
    for path in (REPOSITORY / "configs").glob("*.yaml"):
        (directory / "configs" / path.name).write_bytes(path.read_bytes())
    (directory / "a.txt").write_text("\n".join(sentences(20)), encoding="utf-8")
    (directory / "texts").mkdir()
    for number, text in enumerate(sentences(3)):
        (directory / f"texts/{number}.txt").write_text(text, encoding="utf-8")


def run(text: str, directory: Path) -> str | None:
    """Run one; what it said if it failed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=directory,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return f"exit code {done.returncode}: {done.stderr[-2000:]}" if done.returncode else None


def run_all(wanted: Sequence[Command]) -> int:
    """Run them in a scratch directory, in order; how many failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        prepare_scratch(Path(scratch))
        stand_ins = ["xtoken prepare configs/mine.yaml"]
        if all(command.text != QUICKSTART for command in wanted):
            stand_ins.append("xtoken train configs/mine.yaml --run-dir runs/quickstart")
        for command in [*(Command("stand-in", 0, text) for text in stand_ins), *wanted]:
            started = time.perf_counter()
            complaint = run(command.text, Path(scratch))
            seconds = time.perf_counter() - started
            failed += complaint is not None
            print(f"{'FAILED' if complaint else 'ok'}, {seconds:.0f} s: {command}", flush=True)
            if complaint:
                print(complaint, flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="the quickstart too")
    parser.add_argument("--list", action="store_true", help="only say what would run")
    options = parser.parse_args()
    first: dict[str, Command] = {}
    for command in commands():
        first.setdefault(command.text, command)
    wanted = []
    for command in first.values():
        if reason := command.reason(long=options.long):
            print(f"not run: {command}: {reason}")
        else:
            wanted.append(command)
    if options.list:
        print("\n".join(f"runs: {command}" for command in wanted))
        return
    failed = run_all(wanted)
    print(f"{len(wanted)} commands run, {failed} failed, {len(first) - len(wanted)} not run")
    sys.exit(failed > 0)


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    main()
