"""The losses as training uses them: from hidden states and unembeddings, block by block."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.losses.projected_kl import (
    ChunkMerge,
    ProjectedTerms,
    merge_chain_rule,
    projected_terms,
)
from xtoken_jax.ops import (
    DeviceProjection,
    Spans,
    at_predictors,
    log_softmax,
    map_blocks,
    pick,
    rest_log_probs,
    teacher_predictors,
    unembed,
)


class ModelOutput(NamedTuple):
    """A model's final hidden states, the rows that turn them into logits, and what was read.

    Attributes:
        hidden_BSD: After the final norm.
        unembedding_VD: May have more rows than the tokenizer has tokens.
        ids_BS: The tokens at the positions of `hidden_BSD`.
    """

    hidden_BSD: Float[Array, "B S D"]
    unembedding_VD: Float[Array, "V D"]
    ids_BS: Int[Array, "B S"]


class DistillationSums(NamedTuple):
    """Sums over the batch and what to divide them by. Losses are in nats.

    Attributes:
        cross_entropy: Of the student's next tokens.
        num_targets: Tokens in it.
        distillation: P-KL of the scored chunks.
        num_chunks: Chunks in it.
        agreement: Chunks where teacher and projected student prefer the same token.
        unreachable: Teacher mass on tokens that W cannot reach, at the chunks' first positions.
    """

    cross_entropy: Float[Array, ""]
    num_targets: Float[Array, ""]
    distillation: Float[Array, ""]
    num_chunks: Float[Array, ""]
    agreement: Float[Array, ""]
    unreachable: Float[Array, ""]


def distillation_sums(
    student: ModelOutput,
    teacher: ModelOutput,
    spans: Spans,
    projection: DeviceProjection,
    target_mask_BS: Bool[Array, "B S"],
    *,
    chunk_merge: ChunkMerge = "chain_rule",
    temperature: float = 1.0,
    block_tokens: int = 256,
) -> DistillationSums:
    """P-KL and cross-entropy in one walk over blocks of the student's positions.

    The gradient reaches the student alone. Extra memory is that of one block:
    `block_tokens x (V + U)` a few times over, whatever the length of the batch.

    Args:
        student: With gradient.
        teacher: Held constant.
        spans: Chunks of the batch.
        projection: W.
        target_mask_BS: True where the student's next token is scored by cross-entropy.
        chunk_merge: `"chain_rule"` counts all tokens of a chunk, `"first"` only the first.
        temperature: Divides the logits that the distillation compares; its loss is scaled by
            the square. Cross-entropy is always at temperature 1.
        block_tokens: Student positions a block, over the whole batch.

    Returns:
        Sums with their counts; with no scored chunk, exactly 0.

    Raises:
        ValueError: `temperature` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}")
    teacher = jax.tree.map(jax.lax.stop_gradient, teacher)
    next_log_prob_BS, tempered_BS, terms_BN = _walk(
        student, teacher, spans, projection, temperature, block_tokens
    )
    student_rest_BN = teacher_rest_BN = jnp.zeros_like(terms_BN.kl_N)
    if chunk_merge == "chain_rule":
        teacher_log_prob_BT = next_token_log_probs(
            teacher,
            num_tokens=projection.num_teacher_tokens,
            temperature=temperature,
            block_tokens=block_tokens,
        )
        student_rest_BN = rest_log_probs(
            tempered_BS, spans.student_chunk_BS, spans.student_start_BN
        )
        teacher_rest_BN = rest_log_probs(
            teacher_log_prob_BT, spans.teacher_chunk_BT, spans.teacher_start_BN
        )
    loss_BN = merge_chain_rule(terms_BN.kl_N, terms_BN.carried_N, student_rest_BN, teacher_rest_BN)
    mask_BN = spans.mask_BN
    return DistillationSums(
        cross_entropy=-jnp.sum(next_log_prob_BS, where=target_mask_BS),
        num_targets=jnp.sum(target_mask_BS, dtype=jnp.float32),
        distillation=temperature**2 * jnp.sum(loss_BN, where=mask_BN),
        num_chunks=jnp.sum(mask_BN, dtype=jnp.float32),
        agreement=jnp.sum(terms_BN.agreement_N, where=mask_BN),
        unreachable=jnp.sum(terms_BN.unreachable_N, where=mask_BN),
    )


def _walk(
    student: ModelOutput,
    teacher: ModelOutput,
    spans: Spans,
    projection: DeviceProjection,
    temperature: float,
    block_tokens: int,
) -> tuple[Float[Array, "B S"], Float[Array, "B S"], ProjectedTerms]:
    """All that needs a distribution over the student's vocabulary, in one walk.

    Returns:
        The log-probability of each next token, the same at `temperature`, and the terms of P-KL of
        each chunk, `[B, N]`.
    """
    teacher_at_BS = teacher_predictors(spans)
    teacher_hidden_BSE = jnp.take_along_axis(
        teacher.hidden_BSD, jnp.maximum(teacher_at_BS, 0)[:, :, None], axis=1
    )
    next_ids_BS = jnp.roll(student.ids_BS, -1, axis=1)

    def block(arrays):
        hidden_ND, teacher_hidden_NE, next_ids_N = arrays
        logits_VN = unembed(hidden_ND, student.unembedding_VD)
        log_probs_VN = log_softmax(logits_VN, num_tokens=projection.num_student_tokens)
        next_log_prob_N = tempered_N = pick(log_probs_VN, next_ids_N)
        if temperature != 1:
            log_probs_VN = log_softmax(
                logits_VN / temperature, num_tokens=projection.num_student_tokens
            )
            tempered_N = pick(log_probs_VN, next_ids_N)
        teacher_logits_UN = unembed(teacher_hidden_NE, teacher.unembedding_VD) / temperature
        terms = projected_terms(log_probs_VN, teacher_logits_UN, projection)
        return next_log_prob_N, tempered_N, terms

    next_log_prob_BS, tempered_BS, terms_BS = map_blocks(
        block, (student.hidden_BSD, teacher_hidden_BSE, next_ids_BS), block_tokens=block_tokens
    )
    terms_BN = jax.tree.map(lambda values_BS: at_predictors(values_BS, spans), terms_BS)
    return next_log_prob_BS, tempered_BS, terms_BN


def next_token_log_probs(
    model: ModelOutput,
    *,
    num_tokens: int,
    temperature: float = 1.0,
    block_tokens: int = 256,
) -> Float[Array, "B S"]:
    """At each position the log-probability of the token after it, in nats, block by block.

    The last position of a row has no next token: its value means nothing.

    Args:
        model: Hidden states, unembedding and tokens.
        num_tokens: Of the tokenizer; rows of the unembedding past it get no probability.
        temperature: Divides the logits.
        block_tokens: Positions a block, over the whole batch.
    """

    def block(arrays):
        hidden_ND, next_ids_N = arrays
        logits_VN = unembed(hidden_ND, model.unembedding_VD) / temperature
        return pick(log_softmax(logits_VN, num_tokens=num_tokens), next_ids_N)

    next_ids_BS = jnp.roll(model.ids_BS, -1, axis=1)
    return map_blocks(block, (model.hidden_BSD, next_ids_BS), block_tokens=block_tokens)
