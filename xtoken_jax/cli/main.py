"""The command line: `xtoken COMMAND ...`.

Exit code 0 on success, 1 for a run that failed, 2 for bad usage; a user's mistake is one line.
"""

import os
import sys
from collections.abc import Callable, Sequence

from xtoken_jax.cli.align import Align
from xtoken_jax.cli.assets import Assets
from xtoken_jax.cli.audit import Audit
from xtoken_jax.cli.data import run_data
from xtoken_jax.cli.evaluate import Eval
from xtoken_jax.cli.generate import Generate
from xtoken_jax.cli.init import Init
from xtoken_jax.cli.parsing import parse
from xtoken_jax.cli.plan import run_plan
from xtoken_jax.cli.prepare import run_prepare
from xtoken_jax.cli.project import Project
from xtoken_jax.cli.report import Report
from xtoken_jax.cli.train import run_train
from xtoken_jax.errors import UsageError, XTokenError

_COMMANDS: dict[str, type] = {
    "assets": Assets,
    "align": Align,
    "project": Project,
    "audit": Audit,
    "init": Init,
    "eval": Eval,
    "generate": Generate,
    "report": Report,
}
# These take a config file, and any of its fields as an option.
_EXPERIMENTS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "data": (run_data, "Show what a config trains on, as the model will see it."),
    "prepare": (run_prepare, "Tokenise, align and pack a config's data, once."),
    "train": (run_train, "Distil as a config says; goes on from the last checkpoint."),
    "plan": (run_plan, "Compile a config's step for TPUs that need not be there."),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Says on import, else, that there is no PyTorch, which nothing here needs.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
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
    if name in _EXPERIMENTS:
        return _EXPERIMENTS[name][0](arguments[1:])
    if name not in _COMMANDS:
        raise UsageError(f"unknown command `{name}`; known are {', '.join(_names())}")
    command: Callable[[], None] = parse(_COMMANDS[name], arguments[1:], prog=f"xtoken {name}")
    command()
    return 0


def _names() -> list[str]:
    return [*_COMMANDS, *_EXPERIMENTS]


def _usage() -> str:
    lines = ["usage: xtoken COMMAND ...", ""]
    for name, command in _COMMANDS.items():
        lines.append(f"  {name:8s} {(command.__doc__ or '').strip()}")
    lines += [f"  {name:8s} {told}" for name, (_, told) in _EXPERIMENTS.items()]
    return "\n".join([*lines, "", "`xtoken COMMAND --help` lists a command's options."])


def _complain(error: BaseException | str, *, code: int) -> None:
    message = " ".join(str(error).split())
    print(f"xtoken: error: {message}", file=sys.stderr)
    sys.exit(code)
