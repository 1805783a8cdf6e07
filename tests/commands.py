"""Running `xtoken` in tests, in this process or as a user does."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from xtoken_jax.cli import main


class Finished(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def run(*arguments: object) -> Finished:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        main([str(argument) for argument in arguments])
    code = stop.value.code
    return Finished(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


def run_process(*arguments: object, **environment: str) -> Finished:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "xtoken_jax.cli", *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def complaint(*arguments: object) -> tuple[int, str]:
    """Run a command that must fail with one line on stderr and nothing else: code and message."""
    return complaint_of(run(*arguments))


def complaint_of(finished: Finished) -> tuple[int, str]:
    """The code and the one line of a command that failed as it should."""
    lines = finished.err.splitlines()
    assert finished.out == ""
    assert len(lines) == 1, finished.err
    assert lines[0].startswith("xtoken: error: ")
    return finished.code, lines[0].removeprefix("xtoken: error: ")


def tree(directory: Path) -> set[str]:
    """Everything under a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}
