"""What commands about an experiment share: a config file, and options that change its fields."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xtoken_jax.cli.parsing import parse
from xtoken_jax.errors import UsageError

if TYPE_CHECKING:
    from xtoken_jax.config import ExperimentConfig


def read_experiment(
    command: str, arguments: Sequence[str], *, usage: Sequence[str] = ()
) -> "ExperimentConfig":
    """The config that `xtoken COMMAND CONFIG [--FIELD VALUE ...]` means.

    Args:
        command: Its name.
        arguments: Behind the name, without options of the command's own.
        usage: Lines about those, the first in short.

    Raises:
        UsageError: there is no config, or it or an option is wrong.
    """
    from xtoken_jax.config import ExperimentConfig, check_config, load_config, to_dict

    wants_help = not {"-h", "--help"}.isdisjoint(arguments)
    if wants_help:
        short, *lines = usage or [""]
        print(f"usage: xtoken {command} CONFIG {short}[--FIELD VALUE ...]\n")
        print("\n".join([*lines, ""]) if lines else "", end="\n" if lines else "")
    if arguments and not arguments[0].startswith("-"):
        config = load_config(arguments[0])
    elif wants_help:
        config = check_config(_EXAMPLE, name="example")
    else:
        raise UsageError(f"`xtoken {command}` needs a config file, such as configs/quickstart.yaml")
    prog = f"xtoken {command} {'CONFIG' if wants_help else arguments[0]}"
    options = ["--help"] if wants_help else list(arguments[1:])
    config = parse(ExperimentConfig, options, prog=prog, default=config)
    return check_config(to_dict(config), name="command line")


def take_text(arguments: list[str], name: str) -> str | None:
    """Remove `--NAME TEXT` or `--NAME=TEXT` from the arguments; None where it is not among them.

    Raises:
        UsageError: there is no text.
    """
    for at, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            del arguments[at]
            return argument.removeprefix(f"{name}=")
    if name not in arguments:
        return None
    at = arguments.index(name)
    if at + 1 == len(arguments):
        raise UsageError(f"`{name}` must have a value, got none")
    value = arguments[at + 1]
    del arguments[at : at + 2]
    return value


def take_number(arguments: list[str], name: str, *, least: int) -> int | None:
    """Remove `--NAME NUMBER` from the arguments; None where it is not among them.

    Raises:
        UsageError: it is no number from `least`.
    """
    value = take_text(arguments, name)
    if value is not None and not (value.isdecimal() and int(value) >= least):
        raise UsageError(f"`{name}` must be a number from {least}, got {value!r}")
    return None if value is None else int(value)


# Stands for the fields that have no default in `--help`.
_EXAMPLE = {
    "run_dir": "RUN",
    "student": {"model": "STUDENT"},
    "teachers": {"NAME": {"model": "TEACHER"}},
    "data": {"train": [{"kind": "text", "path": "GLOB"}]},
}
