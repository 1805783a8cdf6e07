"""P-KL and cross-entropy of a batch from hidden states, with gradients written out."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.losses.model_output import ModelOutput
from xtoken_jax.losses.projected_block import (
    PositionTerms,
    Ups,
    gradient_at,
    probs_at,
    terms_at,
)
from xtoken_jax.losses.projected_kl import merge_chain_rule
from xtoken_jax.losses.token_walk import (
    empty_gradient,
    gradient_of_logits,
    next_token_log_probs,
    rounded_to,
    token_logits,
)
from xtoken_jax.losses.walks import at_chunks
from xtoken_jax.ops import (
    DeviceProjection,
    Spans,
    inside_chunks,
    rest_log_probs,
    teacher_predictors,
)
from xtoken_jax.ops.split_projection import SplitProjection
from xtoken_jax.ops.visits import visit_blocks


class ChunkLosses(NamedTuple):
    """What a walk leaves.

    Attributes:
        terms: At the chunks' predictors, `[B, N]`, but `next_log_prob`: at every position.
        loss_BN: Nats per chunk.
        pull: 0, with the gradient that `loss_BN` lacks.
    """

    terms: PositionTerms
    loss_BN: Float[Array, "B N"]
    pull: Float[Array, ""]


def walk_projected(
    student: ModelOutput,
    teacher: ModelOutput,
    spans: Spans,
    projection: DeviceProjection,
    target_mask_BS: Bool[Array, "B S"] | None,
    *,
    whole_chunks: bool,
    block_tokens: int,
) -> ChunkLosses:
    """P-KL of the chunks, and cross-entropy where there are targets.

    Without targets the gradient is made in the walk that computes the loss: what multiplies the
    terms of a chunk is what follows its first token, which is walked before. With targets the
    two losses come from above with factors of their own, which the gradient waits for.

    Args:
        student: With gradient.
        teacher: Held constant.
        spans: Chunks of the batch.
        projection: W, with its `split`.
        target_mask_BS: Positions whose next token counts; None for none.
        whole_chunks: Merge by the chain rule; else the first token counts alone.
        block_tokens: Positions a block, over the whole batch.
    """
    assert projection.split is not None
    teacher_at_BS = teacher_predictors(spans)
    begins_BS = teacher_at_BS >= 0
    inside_BS = inside_chunks(spans.student_chunk_BS, spans.student_start_BN, spans.mask_BN)
    wanted_BS = begins_BS if target_mask_BS is None else begins_BS | target_mask_BS
    if target_mask_BS is not None and whole_chunks:
        wanted_BS |= inside_BS
    held = Held(
        jnp.take_along_axis(teacher.hidden_BSD, jnp.maximum(teacher_at_BS, 0)[:, :, None], axis=1),
        teacher.unembedding_VD,
        jnp.roll(student.ids_BS, -1, axis=1),
        wanted_BS,
        projection.split,
    )
    rests = [jnp.zeros_like(spans.mask_BN, jnp.float32)] * 2
    if whole_chunks:
        rests[1] = _rest_of_teacher(teacher, spans, projection, block_tokens)
    plan = _Plan(projection.num_student_tokens, block_tokens)
    learned = plan, student.hidden_BSD, student.unembedding_VD, held
    if target_mask_BS is not None:
        terms_BS: PositionTerms = position_terms(*learned)
        if whole_chunks:
            rests[0] = _rest_of_student(terms_BS.next_log_prob, spans)
        return _chunk_losses(terms_BS, spans, rests, jnp.zeros(()))
    if whole_chunks:
        options = {"num_tokens": plan.num_tokens, "block_tokens": block_tokens}
        log_prob_BS = next_token_log_probs(student, mask_BS=inside_BS, **options)
        rests[0] = _rest_of_student(log_prob_BS, spans)
    weighted: Any = weighted_terms(*learned, _weights(spans, begins_BS, rests))
    terms_BS, total = weighted
    terms_BS = jax.lax.stop_gradient(terms_BS)
    return _chunk_losses(terms_BS, spans, rests, total - jax.lax.stop_gradient(total))


def _chunk_losses(terms_BS, spans, rests, pull):
    terms = at_chunks(terms_BS, spans)._replace(next_log_prob=terms_BS.next_log_prob)
    return ChunkLosses(terms, merge_chain_rule(terms.kl, terms.carried, *rests), pull)


def _rest_of_student(log_prob_BS, spans):
    return rest_log_probs(log_prob_BS, spans.student_chunk_BS, spans.student_start_BN)


def _rest_of_teacher(teacher, spans, projection, block_tokens):
    log_prob_BT = next_token_log_probs(
        teacher,
        num_tokens=projection.num_teacher_tokens,
        block_tokens=block_tokens,
        mask_BS=inside_chunks(spans.teacher_chunk_BT, spans.teacher_start_BN, spans.mask_BN),
    )
    return rest_log_probs(log_prob_BT, spans.teacher_chunk_BT, spans.teacher_start_BN)


def _weights(spans, begins_BS, rests):
    """What multiplies `kl` and `carried` of the chunk that each position predicts."""
    zero_BN = jnp.zeros(spans.mask_BN.shape)
    # The loss is linear in both, so that its derivative does not depend on them.
    of_chunks = jax.grad(
        lambda kl_BN, carried_BN: merge_chain_rule(
            kl_BN, carried_BN, *jax.lax.stop_gradient(rests)
        ).sum(),
        argnums=(0, 1),
    )(zero_BN, zero_BN)
    next_chunk_BS = jnp.maximum(jnp.roll(spans.student_chunk_BS, -1, axis=1), 0)
    return tuple(
        jnp.where(begins_BS, jnp.take_along_axis(weight_BN, next_chunk_BS, axis=1), 0.0)
        for weight_BN in of_chunks
    )


class Held(NamedTuple):
    """What gets no gradient.

    Attributes:
        teacher_hidden_BSE: The teacher's at the position that predicts the same chunk.
        teacher_unembedding_UE: None where those are logits.
        next_ids_BS: The student's next tokens.
        mask_BS: Positions wanted.
        split: W.
    """

    teacher_hidden_BSE: Float[Array, "B S E"]
    teacher_unembedding_UE: Float[Array, "U E"] | None
    next_ids_BS: Int[Array, "B S"]
    mask_BS: Bool[Array, "B S"]
    split: SplitProjection


class _Plan(NamedTuple):
    """What is known before compilation."""

    num_tokens: int
    block_tokens: int


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def position_terms(
    plan: _Plan,
    hidden_BSD: Float[Array, "B S D"],
    unembedding_VD: Float[Array, "V D"] | None,
    held: Held,
) -> PositionTerms:
    """The terms of P-KL and cross-entropy; their gradient is a second walk."""
    return _terms_forward(plan, hidden_BSD, unembedding_VD, held)[0]


def _terms_forward(plan, hidden_BSD, unembedding_VD, held):
    model = ModelOutput(hidden_BSD, unembedding_VD, held.next_ids_BS)

    def block(nothing, arrays):
        hidden_ND, teacher_hidden_NE, next_ids_N = arrays
        logits = _logits(plan, model, held, hidden_ND, teacher_hidden_NE)
        terms, totals, _ = terms_at(*logits, next_ids_N, held.split)
        return nothing, (terms, totals)

    arrays_BS = (hidden_BSD, held.teacher_hidden_BSE, held.next_ids_BS)
    _, (terms_BS, totals_BS) = visit_blocks(
        block, (), arrays_BS, held.mask_BS, block_tokens=plan.block_tokens
    )
    return terms_BS, (hidden_BSD, unembedding_VD, held, terms_BS.carried, totals_BS)


def _terms_backward(plan, kept, ups: PositionTerms):
    hidden_BSD, unembedding_VD, held, carried_BS, totals_BS = kept
    model = ModelOutput(hidden_BSD, unembedding_VD, held.next_ids_BS)

    def block(up_VD, arrays):
        hidden_ND, teacher_hidden_NE, next_ids_N, carried_N, totals, ups = arrays
        logits = _logits(plan, model, held, hidden_ND, teacher_hidden_NE)
        probs = probs_at(*logits, totals, held.split)
        up_VN = gradient_at(probs, next_ids_N, carried_N, ups, held.split)
        return gradient_of_logits(model, hidden_ND, up_VN, up_VD)

    ups_BS = jax.tree.map(
        lambda up_BS: jnp.where(held.mask_BS, up_BS, 0.0),
        Ups(ups.kl, ups.carried, ups.next_log_prob),
    )
    arrays_BS = (hidden_BSD, held.teacher_hidden_BSE, held.next_ids_BS)
    up_VD, up_BSD = visit_blocks(
        block,
        empty_gradient(model),
        (*arrays_BS, carried_BS, totals_BS, ups_BS),
        held.mask_BS,
        block_tokens=plan.block_tokens,
    )
    return up_BSD, rounded_to(up_VD, unembedding_VD), None


position_terms.defvjp(_terms_forward, _terms_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def weighted_terms(
    plan: _Plan,
    hidden_BSD: Float[Array, "B S D"],
    unembedding_VD: Float[Array, "V D"] | None,
    held: Held,
    weights: tuple[Float[Array, "B S"], Float[Array, "B S"]],
) -> tuple[PositionTerms, Float[Array, ""]]:
    """The terms, and the sum of `kl` and `carried` by weights that are known before.

    One walk computes both and the gradient of the sum, which is all that has a gradient.
    """
    terms_BS, _ = _terms_forward(plan, hidden_BSD, unembedding_VD, held)
    return terms_BS, _weighted_sum(terms_BS, weights)


def _weighted_sum(terms_BS, weights):
    return (weights[0] * terms_BS.kl + weights[1] * terms_BS.carried).sum()


def _weighted_forward(plan, hidden_BSD, unembedding_VD, held, weights):
    model = ModelOutput(hidden_BSD, unembedding_VD, held.next_ids_BS)

    def block(up_VD, arrays):
        hidden_ND, teacher_hidden_NE, next_ids_N, weights_N = arrays
        logits = _logits(plan, model, held, hidden_ND, teacher_hidden_NE)
        terms, _, probs = terms_at(*logits, next_ids_N, held.split)
        up_VN = gradient_at(probs, next_ids_N, terms.carried, Ups(*weights_N), held.split)
        up_VD, up_ND = gradient_of_logits(model, hidden_ND, up_VN, up_VD)
        return up_VD, (terms, up_ND)

    weights = jax.tree.map(lambda weight_BS: jnp.where(held.mask_BS, weight_BS, 0.0), weights)
    up_VD, (terms_BS, up_BSD) = visit_blocks(
        block,
        empty_gradient(model),
        (hidden_BSD, held.teacher_hidden_BSE, held.next_ids_BS, weights),
        held.mask_BS,
        block_tokens=plan.block_tokens,
    )
    kept = up_BSD, rounded_to(up_VD, unembedding_VD)
    return (terms_BS, _weighted_sum(terms_BS, weights)), kept


def _weighted_backward(plan, kept, ups):
    del plan
    up_BSD, up_VD = kept
    scale = ups[1]
    scaled = [None if up is None else (scale * up).astype(up.dtype) for up in (up_BSD, up_VD)]
    return *scaled, None, None


weighted_terms.defvjp(_weighted_forward, _weighted_backward)


def _logits(plan, model, held, hidden_ND, teacher_hidden_NE):
    teacher = ModelOutput(held.teacher_hidden_BSE, held.teacher_unembedding_UE, held.next_ids_BS)
    return token_logits(model, hidden_ND, plan.num_tokens), teacher.logits(teacher_hidden_NE)
