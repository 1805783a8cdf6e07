"""Tyro's parser, whose box about bad usage becomes one line."""

import contextlib
import io
from typing import Any

import tyro

from xtoken_jax.errors import UsageError


def parse(kind: type, arguments: list[str], *, prog: str, default: Any = None) -> Any:
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
