"""Jitted primitives that the losses are made of."""

from xtoken_jax.ops.projection import DeviceProjection, project, to_device
from xtoken_jax.ops.spans import Spans, at_predictors, rest_log_probs, teacher_predictors
from xtoken_jax.ops.unembed import log_softmax, map_blocks, pick, unembed

__all__ = [
    "DeviceProjection",
    "Spans",
    "at_predictors",
    "log_softmax",
    "map_blocks",
    "pick",
    "project",
    "rest_log_probs",
    "teacher_predictors",
    "to_device",
    "unembed",
]
