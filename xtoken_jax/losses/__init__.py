"""Losses as pure functions, in nats, unreduced unless they say otherwise."""

from xtoken_jax.losses.chain_kl import chain_kl, mean_over_terms
from xtoken_jax.losses.chain_walk import Capacity, ChainBatch, Tries, chain_batch, chain_kl_losses
from xtoken_jax.losses.columns import Columns, Unreachable, columns_in_use
from xtoken_jax.losses.combine import dynamic_scaling, fixed_scaling, mean_over
from xtoken_jax.losses.cross_entropy import cross_entropy
from xtoken_jax.losses.distill import DistillationSums, distillation_sums
from xtoken_jax.losses.hybrid_kl import hybrid_kl
from xtoken_jax.losses.model_output import ModelOutput
from xtoken_jax.losses.objective import LossName, Objective, Tables, check_tables
from xtoken_jax.losses.projected_kl import ChunkMerge, projected_kl
from xtoken_jax.losses.same_tokenizer import same_tokenizer_kl
from xtoken_jax.losses.teachers import (
    TeacherScores,
    Trust,
    mean_logits,
    selected,
    sum_losses,
    teacher_scores,
    trust_weights,
)
from xtoken_jax.losses.token_walk import next_token_log_probs
from xtoken_jax.losses.uld import uld

__all__ = [
    "Capacity",
    "ChainBatch",
    "ChunkMerge",
    "Columns",
    "DistillationSums",
    "LossName",
    "ModelOutput",
    "Objective",
    "Tables",
    "TeacherScores",
    "Tries",
    "Trust",
    "Unreachable",
    "chain_batch",
    "chain_kl",
    "chain_kl_losses",
    "check_tables",
    "columns_in_use",
    "cross_entropy",
    "distillation_sums",
    "dynamic_scaling",
    "fixed_scaling",
    "hybrid_kl",
    "mean_logits",
    "mean_over",
    "mean_over_terms",
    "next_token_log_probs",
    "projected_kl",
    "same_tokenizer_kl",
    "selected",
    "sum_losses",
    "teacher_scores",
    "trust_weights",
    "uld",
]
