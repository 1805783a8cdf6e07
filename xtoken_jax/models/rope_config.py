"""Rotary positions as a `config.json` states them, in the spelling of transformers 4 or 5."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from xtoken_jax.errors import XTokenError


@dataclasses.dataclass(frozen=True)
class LinearRope:
    """Every frequency divided by `factor`."""

    factor: float


@dataclasses.dataclass(frozen=True)
class Llama3Rope:
    """Llama-3.1's stretching of the slow rotary frequencies to a longer context.

    Source: transformers `modeling_rope_utils._compute_llama3_parameters`.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class LongRope:
    """A divisor of its own for every frequency: one list for short texts, one for long.

    Attributes:
        short_factor: For texts of at most `original_max_position_embeddings` tokens.
        long_factor: For longer texts.
        original_max_position_embeddings: The context before it was stretched.
        attention_factor: Multiplies cosines and sines, so scores grow by its square.

    Source: LongRoPE (arXiv 2402.13753); transformers `_compute_longrope_parameters`.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_max_position_embeddings: int
    attention_factor: float


@dataclasses.dataclass(frozen=True)
class Rope:
    """Base, share of the head dimensions that turn, and scaling of the frequencies."""

    theta: float = 10_000.0
    partial_factor: float = 1.0
    scaling: LinearRope | Llama3Rope | LongRope | None = None

    def rotary_dim(self, head_dim: int) -> int:
        """How many of a head's dimensions, from the first on, are rotated."""
        return int(head_dim * self.partial_factor)

    def to_hf(self) -> dict[str, Any]:
        """The content of `rope_parameters` (version 5)."""
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": self.theta}
        if self.partial_factor != 1.0:
            rope["partial_rotary_factor"] = self.partial_factor
        if self.scaling is not None:
            rope |= {"rope_type": _NAMES[type(self.scaling)], **dataclasses.asdict(self.scaling)}
        return {key: list(x) if isinstance(x, tuple) else x for key, x in rope.items()}


PLAIN_ROPE = Rope()

_NAMES = {LinearRope: "linear", Llama3Rope: "llama3", LongRope: "longrope"}
_SCALINGS = {name: scaling for scaling, name in _NAMES.items()} | {"su": LongRope}


def rope_section(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and copy of the rope section: version 5's `rope_parameters` or 4's `rope_scaling`.

    Raises:
        XTokenError: both are there and differ.
    """
    old, new = config.get("rope_scaling"), config.get("rope_parameters")
    if old and new and old != new:
        raise XTokenError(
            f"config.json: `rope_scaling` and `rope_parameters` must agree, got {old!r} and {new!r}"
        )
    field = "rope_parameters" if new else "rope_scaling"
    return field, dict(new or old or {})


def read_rope(
    config: Mapping[str, Any],
    section: Mapping[str, Any],
    *,
    field: str,
    theta: float,
    partial: bool,
) -> Rope:
    """Read one rope section.

    Args:
        config: The whole config.json, for what version 4 keeps outside the section.
        section: The section's content; empty for plain rotary positions.
        field: Its name, for messages.
        theta: The base where the section names none.
        partial: Whether the family rotates a part of the head dimensions when told so.

    Raises:
        XTokenError: the type is not supported, or a key is missing, unknown or out of range.
    """
    rope = dict(section)
    theta = float(rope.pop("rope_theta", None) or theta)
    kind = rope.pop("rope_type", None) or rope.get("type") or "default"
    rope.pop("type", None)
    factor = rope.pop("partial_rotary_factor", None) or config.get("partial_rotary_factor") or 1.0
    if not 0.0 < factor <= 1.0 or (factor != 1.0 and not partial):
        raise XTokenError(
            f"config.json: `partial_rotary_factor` must be {'within 0..1' if partial else '1.0'}, "
            f"got {factor!r}"
        )
    if kind != "default" and kind not in _SCALINGS:
        raise XTokenError(
            f"config.json: `{field}.rope_type` must be 'default', 'linear', 'llama3' or "
            f"'longrope', got {kind!r}"
        )
    scaling = _SCALINGS.get(kind)
    if scaling in (Llama3Rope, LongRope):
        _fill_original_length(config, rope)
    if scaling is LongRope:
        _fill_attention_factor(config, rope)
    wanted = {f.name for f in dataclasses.fields(scaling)} if scaling is not None else set()
    if set(rope) != wanted:
        raise XTokenError(
            f"config.json: `{field}` of type {kind!r} must have the keys {sorted(wanted)}, "
            f"got {sorted(rope)}"
        )
    numbers: dict[str, Any] = {
        key: tuple(map(float, x)) if isinstance(x, list) else x for key, x in rope.items()
    }
    return Rope(theta, float(factor), None if scaling is None else scaling(**numbers))


def _fill_original_length(config: Mapping[str, Any], rope: dict[str, Any]) -> None:
    name = "original_max_position_embeddings"
    # Phi-3 keeps it outside the section, where transformers lets it win.
    outside = config.get(name)
    rope[name] = outside or rope.get(name) or config.get("max_position_embeddings", 2048)


def _fill_attention_factor(config: Mapping[str, Any], rope: dict[str, Any]) -> None:
    """LongRope's attention factor follows from the stretching where it is not given."""
    original = rope["original_max_position_embeddings"]
    stretched = rope.pop("factor", None) or config.get("max_position_embeddings", 2048) / original
    if rope.get("attention_factor") is None:
        growth = math.log(stretched) / math.log(original) if stretched > 1.0 else 0.0
        rope["attention_factor"] = math.sqrt(1.0 + growth)
