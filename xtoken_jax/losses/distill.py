"""The losses as training uses them: from hidden states and unembeddings, block by block."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from xtoken_jax.losses.chain_walk import ChainBatch, chain_kl_losses
from xtoken_jax.losses.columns import Columns, columns_in_use, teacher_within, top_columns
from xtoken_jax.losses.hybrid_kl import hybrid_terms
from xtoken_jax.losses.measure_walk import walk_measures
from xtoken_jax.losses.model_output import ModelOutput
from xtoken_jax.losses.objective import Objective, Tables, check_tables
from xtoken_jax.losses.projected_kl import (
    ProjectedTerms,
    mean_projected_terms,
    merge_chain_rule,
    projected_terms,
)
from xtoken_jax.losses.projected_walk import walk_projected
from xtoken_jax.losses.token_walk import next_token_log_probs
from xtoken_jax.losses.uld import uld_terms
from xtoken_jax.losses.walks import (
    Side,
    at_chunks,
    largest_logits,
    scored_lengths,
    walk_means,
    walk_predictors,
)
from xtoken_jax.ops import Spans, inside_chunks, log_softmax, pick, rest_log_probs


class DistillationSums(NamedTuple):
    """Sums over the batch and what to divide them by. Losses are in nats.

    Attributes:
        cross_entropy: Of the student's next tokens.
        num_targets: Tokens in it.
        distillation: Of the scored chunks.
        num_chunks: Chunks in it.
        agreement: P-KL: chunks where teacher and projected student prefer the same token; 0 for
            other losses.
        unreachable: P-KL: teacher mass on tokens that W cannot reach, at the chunks' first
            positions; 0 for other losses and for the mean merge.
    """

    cross_entropy: Float[Array, ""]
    num_targets: Float[Array, ""]
    distillation: Float[Array, ""]
    num_chunks: Float[Array, ""]
    agreement: Float[Array, ""]
    unreachable: Float[Array, ""]


class _Values(NamedTuple):
    """What a walk leaves: the student's next tokens, and the chunks.

    Attributes:
        next_log_prob_BS: At temperature 1.
        loss_BN: Nats per chunk, before the square of the temperature.
        agreement_BN: See `DistillationSums`.
        unreachable_BN: Likewise.
        mask_BN: Chunks that count.
        pull: 0, with a gradient that belongs to the sum of the losses.
    """

    next_log_prob_BS: Float[Array, "B S"]
    loss_BN: Float[Array, "B N"]
    agreement_BN: Float[Array, "B N"]
    unreachable_BN: Float[Array, "B N"]
    mask_BN: Bool[Array, "B N"]
    pull: Float[Array, ""] | float = 0.0


def distillation_sums(
    student: ModelOutput,
    teacher: ModelOutput,
    spans: Spans,
    tables: Tables,
    target_mask_BS: Bool[Array, "B S"] | None = None,
    objective: Objective = Objective(),  # noqa: B008 (frozen)
    *,
    chain: ChainBatch | None = None,
    block_tokens: int = 256,
) -> DistillationSums:
    """A distillation loss and cross-entropy, walked over blocks of positions.

    The gradient reaches the student, and W if its weights are traced. Extra memory is that of one
    block: `block_tokens x (V + U)` a few times over, whatever the length of the batch.

    Args:
        student: With gradient.
        teacher: Held constant.
        spans: Chunks of the batch.
        tables: W, and what else the loss needs.
        target_mask_BS: True where the student's next token is scored by cross-entropy; None
            scores none.
        objective: Which loss; cross-entropy is always at temperature 1.
        chain: C-KL: the terms of the chunks, from `chain_batch`.
        block_tokens: Student positions a block, over the whole batch.

    Returns:
        Sums with their counts; with no scored chunk, exactly 0.

    Raises:
        ValueError: `tables` or `chain` lacks what the objective needs, or has what it cannot use.
    """
    check_tables(objective, tables)
    if (objective.loss == "c_kl") != (chain is not None):
        need = "needs" if chain is None else "alone takes"
        raise ValueError(f"c_kl {need} `chain`, got loss {objective.loss}")
    teacher = jax.tree.map(jax.lax.stop_gradient, teacher)
    walk = _walk_of(objective, tables, chain)
    values = walk(student, teacher, spans, tables, target_mask_BS, objective, block_tokens)
    if target_mask_BS is None:
        target_mask_BS = jnp.zeros(student.ids_BS.shape, bool)
    loss = jnp.sum(values.loss_BN, where=values.mask_BN) + values.pull
    return DistillationSums(
        cross_entropy=-jnp.sum(values.next_log_prob_BS, where=target_mask_BS),
        num_targets=jnp.sum(target_mask_BS, dtype=jnp.float32),
        distillation=objective.temperature**2 * loss,
        num_chunks=jnp.sum(values.mask_BN, dtype=jnp.float32),
        agreement=jnp.sum(values.agreement_BN, where=values.mask_BN),
        unreachable=jnp.sum(values.unreachable_BN, where=values.mask_BN),
    )


def _walk_of(objective, tables, chain) -> Callable[..., _Values]:
    if chain is not None:
        return functools.partial(_walk_chain, chain)
    if objective.chunk_merge == "mean":
        return _walk_means
    # The P-KL with the default options has a walk of its own.
    if objective == Objective(chunk_merge=objective.chunk_merge) and tables.projection.split:
        return _walk_split
    return _walk_projected if objective.loss == "p_kl" else _walk_measures


def _walk_split(student, teacher, spans, tables, target_mask_BS, objective, block_tokens):
    losses = walk_projected(
        student,
        teacher,
        spans,
        tables.projection,
        target_mask_BS,
        whole_chunks=objective.chunk_merge == "chain_rule",
        block_tokens=block_tokens,
    )
    next_log_prob, _, _, agreement, unreachable = losses.terms
    return _Values(
        next_log_prob, losses.loss_BN, agreement, unreachable, spans.mask_BN, losses.pull
    )


def _walk_projected(
    student: ModelOutput,
    teacher: ModelOutput,
    spans: Spans,
    tables: Tables,
    target_mask_BS: Bool[Array, "B S"] | None,
    objective: Objective,
    block_tokens: int,
) -> _Values:
    """P-KL at the chunks' first positions and cross-entropy share the student's logits.

    What follows a chunk's first token enters the loss by a factor and a term alone, after the walk.
    """
    del target_mask_BS  # every position is walked in any case
    temperature, projection = objective.temperature, tables.projection
    columns = _columns(teacher, spans, tables, objective, block_tokens)

    def block(logits_VN, teacher_logits_UN, next_ids_N):
        log_probs_VN = log_softmax(logits_VN, num_tokens=projection.num_student_tokens)
        next_log_prob_N = tempered_N = pick(log_probs_VN, next_ids_N)
        if temperature != 1:
            log_probs_VN = log_softmax(
                logits_VN / temperature, num_tokens=projection.num_student_tokens
            )
            tempered_N = pick(log_probs_VN, next_ids_N)
        terms = projected_terms(
            log_probs_VN,
            teacher_logits_UN / temperature,
            projection,
            columns,
            reverse=objective.reverse,
        )
        return next_log_prob_N, tempered_N, terms

    next_log_prob_BS, tempered_BS, terms_BS = walk_predictors(
        student, teacher, spans, block, block_tokens=block_tokens
    )
    terms_BN: ProjectedTerms = at_chunks(terms_BS, spans)
    rests = _rests(tempered_BS, teacher, spans, tables, objective, block_tokens)
    loss_BN = merge_chain_rule(terms_BN.kl_N, terms_BN.carried_N, *rests, reverse=objective.reverse)
    return _Values(
        next_log_prob_BS, loss_BN, terms_BN.agreement_N, terms_BN.unreachable_N, spans.mask_BN
    )


def _walk_measures(
    student: ModelOutput,
    teacher: ModelOutput,
    spans: Spans,
    tables: Tables,
    target_mask_BS: Bool[Array, "B S"] | None,
    objective: Objective,
    block_tokens: int,
) -> _Values:
    """Losses that sort chunk measures, and so need the whole measure at once.

    The probability of what follows a chunk's first token is walked first, with cross-entropy.
    """
    num_tokens, temperature = tables.projection.num_student_tokens, objective.temperature
    next_log_prob_BS = _of_targets(
        student, target_mask_BS, num_tokens=num_tokens, block_tokens=block_tokens
    )
    tempered_BS = None
    if objective.chunk_merge == "chain_rule":
        tempered_BS = next_token_log_probs(
            student,
            num_tokens=num_tokens,
            temperature=temperature,
            block_tokens=block_tokens,
            mask_BS=inside_chunks(spans.student_chunk_BS, spans.student_start_BN, spans.mask_BN),
        )
    rests = _rests(tempered_BS, teacher, spans, tables, objective, block_tokens)

    def loss_of(tables, logits_VN, teacher_logits_UN, *rests_N):
        return _loss_of_measures(
            log_softmax(logits_VN / temperature, num_tokens=num_tokens),
            log_softmax(
                teacher_logits_UN / temperature, num_tokens=tables.projection.num_teacher_tokens
            ),
            tables,
            objective,
            *rests_N,
        )

    loss_BN, pull = walk_measures(
        loss_of, student, teacher, spans, tables, rests, block_tokens=block_tokens
    )
    nothing_BN = jnp.zeros_like(loss_BN)
    return _Values(next_log_prob_BS, loss_BN, nothing_BN, nothing_BN, spans.mask_BN, pull)


def _walk_chain(
    chain: ChainBatch,
    student: ModelOutput,
    teacher: ModelOutput,
    spans: Spans,
    tables: Tables,
    target_mask_BS: Bool[Array, "B S"] | None,
    objective: Objective,
    block_tokens: int,
) -> _Values:
    """C-KL, term by term; cross-entropy is walked apart."""
    assert tables.tries is not None  # by `check_tables`
    loss_BN, mask_BN = chain_kl_losses(
        student,
        teacher,
        chain,
        tables.tries,
        spans.mask_BN,
        reverse=objective.reverse,
        temperature=objective.temperature,
        block_tokens=block_tokens,
    )
    next_log_prob_BS = _of_targets(
        student,
        target_mask_BS,
        num_tokens=tables.projection.num_student_tokens,
        block_tokens=block_tokens,
    )
    nothing_BN = jnp.zeros_like(loss_BN)
    loss_BN = loss_BN / objective.temperature**2  # `distillation_sums` multiplies by it
    return _Values(next_log_prob_BS, loss_BN, nothing_BN, nothing_BN, mask_BN)


def _walk_means(
    student: ModelOutput,
    teacher: ModelOutput,
    spans: Spans,
    tables: Tables,
    target_mask_BS: Bool[Array, "B S"] | None,
    objective: Objective,
    block_tokens: int,
) -> _Values:
    """Losses of means over the chunks' positions; cross-entropy is walked apart."""
    projection, temperature = tables.projection, objective.temperature
    lengths = scored_lengths(spans, max_chunk_tokens=objective.max_chunk_tokens)
    columns = _columns(teacher, spans, tables, objective, block_tokens)
    is_projected = objective.loss == "p_kl"

    def student_values(logits_VN):
        log_p_VN = log_softmax(logits_VN / temperature, num_tokens=projection.num_student_tokens)
        return jnp.exp(log_p_VN) if is_projected else log_p_VN

    def teacher_values(logits_UN):
        if is_projected:
            return teacher_within(logits_UN / temperature, projection, columns)[0]
        return log_softmax(logits_UN / temperature, num_tokens=projection.num_teacher_tokens)

    def function(mean_VN, mean_UN):
        if is_projected:
            return mean_projected_terms(
                mean_VN, mean_UN, projection, columns, reverse=objective.reverse
            )
        nothing_N = jnp.zeros(mean_VN.shape[1])
        loss_N = _loss_of_measures(mean_VN, mean_UN, tables, objective, nothing_N, nothing_N)
        return ProjectedTerms(loss_N, nothing_N, nothing_N, nothing_N)

    terms_BN = walk_means(
        Side(student, student_values),
        Side(teacher, teacher_values),
        spans,
        lengths,
        function,
        max_chunk_tokens=objective.max_chunk_tokens,
        block_tokens=block_tokens,
    )
    next_log_prob_BS = _of_targets(
        student,
        target_mask_BS,
        num_tokens=projection.num_student_tokens,
        block_tokens=block_tokens,
    )
    return _Values(
        next_log_prob_BS,
        terms_BN.kl_N,
        terms_BN.agreement_N,
        terms_BN.unreachable_N,
        lengths.mask_BN,
    )


def _of_targets(student, target_mask_BS, *, num_tokens, block_tokens):
    """Log-probabilities of the next tokens that cross-entropy counts; 0 elsewhere."""
    if target_mask_BS is None:
        return jnp.zeros(student.ids_BS.shape)
    return next_token_log_probs(
        student, num_tokens=num_tokens, block_tokens=block_tokens, mask_BS=target_mask_BS
    )


def _loss_of_measures(log_p_VN, log_q_UN, tables, objective, student_rest_N, teacher_rest_N):
    """GOLD, H-KL or ULD of two measures, each a distribution times what follows it."""
    rests = {"log_c_S_N": student_rest_N, "log_c_T_N": teacher_rest_N}
    if objective.loss == "uld":
        num_tokens = tables.projection.num_student_tokens, tables.projection.num_teacher_tokens
        return uld_terms(log_p_VN[: num_tokens[0]], log_q_UN[: num_tokens[1]], **rests)
    return hybrid_terms(
        log_p_VN,
        log_q_UN,
        tables.common,
        **rests,
        uncommon_top_k=objective.uncommon_top_k,
        reverse=objective.reverse,
    )


def _rests(student_log_prob_BS, teacher, spans, tables, objective, block_tokens):
    """Log-probability of what follows the chunks' first tokens, of both sides; 0 if not asked."""
    if objective.chunk_merge != "chain_rule":
        nothing_BN = jnp.zeros_like(spans.mask_BN, jnp.float32)
        return nothing_BN, nothing_BN
    log_prob_BT = next_token_log_probs(
        teacher,
        num_tokens=tables.projection.num_teacher_tokens,
        temperature=objective.temperature,
        block_tokens=block_tokens,
        mask_BS=inside_chunks(spans.teacher_chunk_BT, spans.teacher_start_BN, spans.mask_BN),
    )
    return (
        rest_log_probs(student_log_prob_BS, spans.student_chunk_BS, spans.student_start_BN),
        rest_log_probs(log_prob_BT, spans.teacher_chunk_BT, spans.teacher_start_BN),
    )


def _columns(teacher, spans, tables, objective, block_tokens) -> Columns:
    top_U = None
    if objective.top_k is not None:
        next_chunk_BT = jnp.roll(spans.teacher_chunk_BT, -1, axis=1).at[:, -1].set(-1)
        is_scored_BT = jnp.take_along_axis(spans.mask_BN, jnp.maximum(next_chunk_BT, 0), axis=1)
        largest_U = largest_logits(
            teacher, is_scored_BT & (next_chunk_BT >= 0), block_tokens=block_tokens
        )
        top_U = top_columns(largest_U, tables.projection, top_k=objective.top_k)
    return columns_in_use(
        tables.projection,
        unreachable=objective.unreachable,
        fold_ids_U=tables.fold_ids_U,
        top_U=top_U,
    )
