"""Losses as pure functions, in nats, unreduced unless they say otherwise."""

from xtoken_jax.losses.combine import dynamic_scaling, fixed_scaling, mean_over
from xtoken_jax.losses.cross_entropy import cross_entropy
from xtoken_jax.losses.distill import (
    DistillationSums,
    ModelOutput,
    distillation_sums,
    next_token_log_probs,
)
from xtoken_jax.losses.projected_kl import ChunkMerge, projected_kl

__all__ = [
    "ChunkMerge",
    "DistillationSums",
    "ModelOutput",
    "cross_entropy",
    "distillation_sums",
    "dynamic_scaling",
    "fixed_scaling",
    "mean_over",
    "next_token_log_probs",
    "projected_kl",
]
