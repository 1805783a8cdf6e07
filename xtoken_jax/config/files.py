"""Configs as YAML files and as plain values, and what is wrong with one in a line."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import pydantic
import yaml

from xtoken_jax.config.sections import ExperimentConfig
from xtoken_jax.errors import UsageError

# What may differ between a checkpoint and the run that resumes it: none of it changes the losses.
# Of `optim.max_skipped_steps` the checkpoint holds how many were skipped.
_FREE_ON_RESUME = (
    "run_dir",
    "mesh",
    "checkpoint",
    "evaluation",
    "planning",
    "optim.accumulation_steps",
    "optim.max_skipped_steps",
)


def load_config(path: str | Path) -> ExperimentConfig:
    """Read and check a YAML config.

    Raises:
        UsageError: the file is missing, not YAML, or has an unknown key or a bad value; one line
            for each, with the field, what is allowed and what was found.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"config {path} does not exist") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        summary = " ".join(str(error).split())
        raise UsageError(f"config {path} must be a YAML file, got: {summary}") from error
    if not isinstance(content, dict):
        raise UsageError(f"config {path} must be a mapping of fields, got {content!r:.60}")
    return check_config(content, name=str(path))


def check_config(content: Mapping[str, Any], *, name: str) -> ExperimentConfig:
    """Check parsed YAML; raises as `load_config` does."""
    try:
        adapter = pydantic.TypeAdapter(ExperimentConfig)
        return adapter.validate_python(dict(content))
    except pydantic.ValidationError as error:
        problems = [_problem(detail) for detail in error.errors() if not _follows(detail)]
        raise UsageError(f"{name}: {'; '.join(problems)}") from error


def _follows(detail: Any) -> bool:
    """Pydantic counts only the good items of a list: a bad one also makes it too short."""
    return detail["type"] == "too_short" and len(detail["input"]) > 0


def _problem(detail: Any) -> str:
    field = ".".join(map(str, detail["loc"])) or "config"
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"`{field}` is not a field; there are {', '.join(_fields_beside(detail['loc']))}"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if detail["type"] in ("value_error", "missing_argument", "missing"):
        return f"`{field}`: {message}"
    return f"`{field}`: {message}, got {detail['input']!r:.80}"


def _fields_beside(location: Sequence[int | str]) -> list[str]:
    """Names of the fields of the section that a key is in."""
    section: Any = ExperimentConfig
    for name in location[:-1]:
        if dataclasses.is_dataclass(section):
            section = get_type_hints(section)[str(name)]
        else:  # an item of a list, or a named one
            section = next(kind for kind in get_args(section) if dataclasses.is_dataclass(kind))
    return [field.name for field in dataclasses.fields(section)]


def to_dict(config: ExperimentConfig) -> dict[str, Any]:
    """The config as plain values, every default written out."""
    return cast(
        dict[str, Any], pydantic.TypeAdapter(ExperimentConfig).dump_python(config, mode="json")
    )


def differences(saved: Mapping[str, Any], config: ExperimentConfig) -> list[str]:
    """What stands between a checkpoint's config and this one, as `field: saved -> now` lines."""
    before, now = flat(saved), flat(to_dict(config))
    return [
        f"{field}: {before.get(field)} -> {now.get(field)}"
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field) and not _is_free(field)
    ]


def _is_free(field: str) -> bool:
    return any(field == free or field.startswith(f"{free}.") for free in _FREE_ON_RESUME)


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain values of a config by their fields, such as `optim.steps` and `data.train.0.kind`."""
    fields: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, dict):
            fields |= flat(value, f"{prefix}{key}.")
        else:
            fields[f"{prefix}{key}"] = value
    return fields


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with changes; a mapping in it changes only its own keys."""
    result = dict(content)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = merged(result[name], value) if both else value
    return result
