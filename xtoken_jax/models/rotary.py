"""Rotary positions: the angle of every position, and the rotation of queries and keys.

A decoder has one table of angles for every kind of layer it has (`layer_ropes`): layers differ by
the number of their table, which is data of the scan over layers, not by their program.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.rope_config import LinearRope, Llama3Rope, LongRope, Rope


class RotaryTables(NamedTuple):
    """Cosine and sine of every kind of layer (first axis); `half` is half the rotated dims."""

    cos: Float[Array, "kinds B S half"]
    sin: Float[Array, "kinds B S half"]


def layer_ropes(architecture: Architecture) -> tuple[tuple[Rope | None, ...], np.ndarray]:
    """The kinds of rotary positions that the layers have (None is none), and each layer's kind."""
    arch = architecture
    local_layers = arch.local_layers or (False,) * arch.num_layers
    rotary_layers = arch.rotary_layers or (True,) * arch.num_layers
    of_layers: list[Rope | None] = []
    for is_local, is_rotary in zip(local_layers, rotary_layers, strict=True):
        rope = arch.local_rope if is_local and arch.local_rope is not None else arch.rope
        of_layers.append(rope if is_rotary else None)
    kinds = tuple(dict.fromkeys(of_layers))
    return kinds, np.asarray([kinds.index(rope) for rope in of_layers], np.int32)


def rotary_tables(
    ropes: Sequence[Rope | None],
    head_dim: int,
    positions_BS: Int[Array, "B S"],
    segment_ids_BS: Int[Array, "B S"],
) -> RotaryTables:
    """Cosine and sine of position times frequency, in float32, for every kind of layer.

    Args:
        ropes: The kinds; None turns nothing.
        head_dim: Of queries and keys.
        positions_BS: Restart at 0 in every text.
        segment_ids_BS: Equal within a text, whose length decides between LongRope's two lists.
    """
    half = max((rope.rotary_dim(head_dim) for rope in ropes if rope is not None), default=0) // 2
    tables = []
    for rope in ropes:
        if rope is None:
            ones = jnp.ones((*positions_BS.shape, half), jnp.float32)
            tables.append((ones, jnp.zeros_like(ones)))
        else:
            tables.append(_tables(rope, head_dim, positions_BS, segment_ids_BS))
    return RotaryTables(*(jnp.stack(parts) for parts in zip(*tables, strict=True)))


def _tables(rope: Rope, head_dim: int, positions_BS, segment_ids_BS):
    frequencies = jnp.asarray(rotary_frequencies(rope, head_dim))[None, None]
    scale = 1.0
    if isinstance(rope.scaling, LongRope):
        lengths_BS = segment_lengths(positions_BS, segment_ids_BS)
        is_long_BS1 = (lengths_BS > rope.scaling.original_max_position_embeddings)[..., None]
        long = jnp.asarray(rotary_frequencies(rope, head_dim, long=True))[None, None]
        frequencies = jnp.where(is_long_BS1, long, frequencies)
        scale = rope.scaling.attention_factor
    angles = positions_BS.astype(jnp.float32)[..., None] * frequencies
    return jnp.cos(angles) * scale, jnp.sin(angles) * scale


def segment_lengths(
    positions_BS: Int[Array, "B S"], segment_ids_BS: Int[Array, "B S"]
) -> Int[Array, "B S"]:
    """The length of the text that each position is in: its segment's last position plus one."""
    together_BST = segment_ids_BS[:, :, None] == segment_ids_BS[:, None, :]
    return jnp.where(together_BST, positions_BS[:, None, :], 0).max(axis=-1) + 1


def rotary_frequencies(rope: Rope, head_dim: int, *, long: bool = False) -> np.ndarray:
    """Radians per position of each rotated pair, float32.

    Args:
        rope: Base, share of the dimensions and scaling.
        head_dim: Its rotated part has twice as many dimensions as there are pairs.
        long: LongRope's list for long texts instead of that for short ones.

    Source: RoFormer (arXiv 2104.09864); the scalings from transformers `modeling_rope_utils`:
    "llama3" divides slow waves by `factor`, keeps fast ones and interpolates between; "longrope"
    divides each frequency by its own number.
    """
    half = rope.rotary_dim(head_dim) // 2
    frequencies = rope.theta ** -(np.arange(half) / half)
    scaling = rope.scaling
    if isinstance(scaling, LinearRope):
        frequencies = frequencies / scaling.factor
    elif isinstance(scaling, LongRope):
        frequencies = frequencies / np.asarray(
            scaling.long_factor if long else scaling.short_factor
        )
    elif isinstance(scaling, Llama3Rope):
        waves_in_context = scaling.original_max_position_embeddings * frequencies / (2 * np.pi)
        span = scaling.high_freq_factor - scaling.low_freq_factor
        keep = np.clip((waves_in_context - scaling.low_freq_factor) / span, 0.0, 1.0)
        frequencies = frequencies * (keep + (1.0 - keep) / scaling.factor)
    return frequencies.astype(np.float32)


def rotate(
    x_BSHE: Float[Array, "B S H E"],
    cos_BSX: Float[Array, "B S half"],
    sin_BSX: Float[Array, "B S half"],
) -> Float[Array, "B S H E"]:
    """Rotate dimension i against i + `half` by the position's angle, in float32.

    Dimensions past 2 x `half` stay as they are.
    """
    half = cos_BSX.shape[-1]
    cos, sin = cos_BSX[:, :, None], sin_BSX[:, :, None]
    x32 = x_BSHE.astype(jnp.float32)
    first, second, rest = jnp.split(x32, (half, 2 * half), axis=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin, rest)
    return jnp.concatenate(rotated, axis=-1).astype(x_BSHE.dtype)
