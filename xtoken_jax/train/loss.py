"""What a step minimises: cross-entropy and the teachers' losses, and how they add up."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.config import LossConfig, TeacherConfig
from xtoken_jax.losses import (
    ChainBatch,
    DistillationSums,
    ModelOutput,
    Tables,
    TeacherScores,
    distillation_sums,
    dynamic_scaling,
    fixed_scaling,
    mean_logits,
    mean_over,
    next_token_log_probs,
    selected,
    sum_losses,
    teacher_scores,
    trust_weights,
)
from xtoken_jax.ops import Spans

Metrics = dict[str, Float[Array, ""]]

# Stands for all teachers where their logits are averaged.
MEAN = "mean"


class Lesson(NamedTuple):
    """What one teacher says of a batch.

    Attributes:
        output: Of the teacher.
        segment_ids_BT: Of its tokens.
        spans: Its chunks on both sides.
        chain: Terms of C-KL, where that is its loss.
        tables: Of the two vocabularies.
    """

    output: ModelOutput
    segment_ids_BT: Int[Array, "B T"]
    spans: Spans
    chain: ChainBatch | None
    tables: Tables


class LossSums(NamedTuple):
    """What `total_loss` needs of a batch; those of its parts add up to those of the whole.

    Attributes:
        cross_entropy: Of the student's next tokens, nats.
        num_targets: Tokens in it.
        teachers: By teacher; with `combine` `mean_logits` of all as one.
        scores: How sure each teacher is, times the number of its tokens; empty where unused.
        num_scored: Of each teacher's tokens.
    """

    cross_entropy: Float[Array, ""]
    num_targets: Float[Array, ""]
    teachers: dict[str, DistillationSums]
    scores: dict[str, TeacherScores]
    num_scored: dict[str, Float[Array, ""]]


def loss_sums(
    student: ModelOutput,
    lessons: Mapping[str, Lesson],
    target_mask_BS: Bool[Array, "B S"],
    teaching: Mapping[str, TeacherConfig],
    loss: LossConfig,
    *,
    num_tokens: int,
) -> LossSums:
    """Everything about a batch, or a part of one, that takes its tokens.

    Args:
        student: With gradient.
        lessons: By teacher; none for cross-entropy alone.
        target_mask_BS: True where the student's next token counts for cross-entropy.
        teaching: Options of each teacher, by the same names.
        loss: How all adds up.
        num_tokens: Of the student's tokenizer.
    """
    if not lessons:
        log_probs_BS = next_token_log_probs(
            student, num_tokens=num_tokens, block_tokens=loss.block_tokens
        )
        cross_entropy = -jnp.sum(log_probs_BS, where=target_mask_BS)
        return LossSums(cross_entropy, jnp.sum(target_mask_BS, dtype=jnp.float32), {}, {}, {})
    if loss.combine == "mean_logits":
        lessons, teaching = _as_one(lessons, teaching)
    sums: dict[str, DistillationSums] = {}
    for name, lesson in lessons.items():
        sums[name] = distillation_sums(
            student,
            lesson.output,
            lesson.spans,
            lesson.tables,
            None if sums else target_mask_BS,  # cross-entropy is the same beside every teacher
            teaching[name].loss.objective(),
            chain=lesson.chain,
            block_tokens=loss.block_tokens,
        )
    first = next(iter(sums.values()))
    scores, num_scored = {}, {}
    if len(lessons) > 1 and loss.combine in ("trust", "select"):
        for name, lesson in lessons.items():
            scores[name], num_scored[name] = _score_sums(lesson, loss.block_tokens)
    return LossSums(first.cross_entropy, first.num_targets, sums, scores, num_scored)


def total_loss(
    sums: LossSums,
    teaching: Mapping[str, TeacherConfig],
    loss: LossConfig,
    vocab_sizes: Mapping[str, int],
) -> tuple[Float[Array, ""], Metrics]:
    """The loss of a batch in nats, and what is worth reporting of it.

    Args:
        sums: Of the whole batch.
        teaching: Options of each teacher.
        loss: How all adds up.
        vocab_sizes: Tokens of each teacher.
    """
    cross_entropy = mean_over(sums.cross_entropy, sums.num_targets)
    if not sums.teachers:
        return cross_entropy, {"cross_entropy": cross_entropy}
    if MEAN in sums.teachers:
        first = next(iter(teaching))
        teaching, vocab_sizes = {MEAN: teaching[first]}, {MEAN: vocab_sizes[first]}
    distillation, metrics = _combined(sums, teaching, loss, vocab_sizes)
    if loss.scaling == "dynamic":
        total = dynamic_scaling(distillation, cross_entropy)
    else:
        total = fixed_scaling(
            distillation,
            cross_entropy,
            distillation_weight=loss.distillation_weight,
            cross_entropy_weight=loss.cross_entropy_weight,
        )
    return total, {"cross_entropy": cross_entropy, "distillation": distillation, **metrics}


def weights_take_values(loss: LossConfig) -> bool:
    """Whether what cross-entropy and the teachers' losses are multiplied by depends on a batch."""
    return loss.scaling == "dynamic" or loss.combine in ("trust", "select")


def _as_one(
    lessons: Mapping[str, Lesson], teaching: Mapping[str, TeacherConfig]
) -> tuple[dict[str, Lesson], dict[str, TeacherConfig]]:
    """All teachers as one that averages their logits; the config and set-up saw that it can be."""
    first = next(iter(lessons))
    output = mean_logits(
        [lesson.output for lesson in lessons.values()],
        [teaching[name].weight for name in lessons],
        fingerprints=["the same"] * len(lessons),
    )
    return {MEAN: lessons[first]._replace(output=output)}, {MEAN: teaching[first]}


def _combined(
    sums: LossSums,
    teaching: Mapping[str, TeacherConfig],
    loss: LossConfig,
    vocab_sizes: Mapping[str, int],
) -> tuple[Float[Array, ""], Metrics]:
    """One distillation loss from one of each teacher, in nats per chunk."""
    losses = [mean_over(each.distillation, each.num_chunks) for each in sums.teachers.values()]
    sizes = [vocab_sizes[name] for name in sums.teachers] if loss.scale_by_vocabulary else None
    metrics: Metrics = {}
    for (name, each), value in zip(sums.teachers.items(), losses, strict=True):
        metrics |= {f"{name}/distillation": value, f"{name}/num_chunks": each.num_chunks}
        if teaching[name].loss.kind == "p_kl":
            metrics[f"{name}/agreement"] = mean_over(each.agreement, each.num_chunks)
            metrics[f"{name}/unreachable"] = mean_over(each.unreachable, each.num_chunks)
    if len(losses) == 1 or loss.combine == "sum":
        weights = [teaching[name].weight for name in sums.teachers]
        return sum_losses(losses, weights, vocab_sizes=sizes), metrics
    scores = [_mean_scores(sums.scores[name], sums.num_scored[name]) for name in sums.teachers]
    if loss.combine == "trust":
        weights_N = trust_weights(
            scores, trust=loss.trust, alpha=loss.trust_sharpness, vocab_sizes=sizes
        )
        metrics |= {f"{name}/weight": weights_N[i] for i, name in enumerate(sums.teachers)}
        return sum_losses(losses, weights_N, vocab_sizes=sizes), metrics
    total, best = selected(losses, scores)
    for index, name in enumerate(sums.teachers):
        metrics[f"{name}/weight"] = (best == index).astype(jnp.float32)
    return total, metrics


def _score_sums(lesson: Lesson, block_tokens: int) -> tuple[TeacherScores, Float[Array, ""]]:
    segments_BT = lesson.segment_ids_BT
    goes_on_BT = (segments_BT[:, 1:] == segments_BT[:, :-1]) & (segments_BT[:, 1:] > 0)
    means = teacher_scores(
        lesson.output,
        jnp.pad(goes_on_BT, ((0, 0), (0, 1))),
        num_tokens=lesson.tables.projection.num_teacher_tokens,
        block_tokens=block_tokens,
    )
    count = jnp.sum(goes_on_BT, dtype=jnp.float32)
    return TeacherScores(*(mean * count for mean in means)), count


def _mean_scores(sums: TeacherScores, count: Float[Array, ""]) -> TeacherScores:
    return TeacherScores(*(mean_over(total, count) for total in sums))
