"""Jitted primitives that the losses are made of."""

from xtoken_jax.ops.common_set import DeviceCommonSet, common_set_to_device
from xtoken_jax.ops.piece_trie import DevicePieceTrie, piece_trie_to_device
from xtoken_jax.ops.projection import (
    DeviceProjection,
    project,
    row_softmax,
    to_device,
    to_host,
    with_weights,
)
from xtoken_jax.ops.spans import (
    Spans,
    at_predictors,
    chunk_lengths,
    inside_chunks,
    rest_log_probs,
    spans_of,
    teacher_predictors,
)
from xtoken_jax.ops.unembed import log_softmax, map_blocks, pick, unembed

__all__ = [
    "DeviceCommonSet",
    "DevicePieceTrie",
    "DeviceProjection",
    "Spans",
    "at_predictors",
    "chunk_lengths",
    "common_set_to_device",
    "inside_chunks",
    "log_softmax",
    "map_blocks",
    "pick",
    "piece_trie_to_device",
    "project",
    "rest_log_probs",
    "row_softmax",
    "spans_of",
    "teacher_predictors",
    "to_device",
    "to_host",
    "unembed",
    "with_weights",
]
