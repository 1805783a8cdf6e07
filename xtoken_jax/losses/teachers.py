"""Several teachers: how their losses, or their logits, become one.

Each teacher has its own loss, W and temperature: call `distillation_sums` once for each, take the
means, and combine those here.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.losses.combine import mean_over
from xtoken_jax.losses.model_output import ModelOutput
from xtoken_jax.ops import log_softmax, map_blocks, pick

Trust = Literal["cross_entropy", "entropy", "max_prob"]


class TeacherScores(NamedTuple):
    """How sure a teacher is, over its own tokens; means, held constant.

    Attributes:
        cross_entropy: Of its next tokens, nats.
        entropy: Of its distributions, nats.
        max_prob: Their largest probability.
    """

    cross_entropy: Float[Array, ""]
    entropy: Float[Array, ""]
    max_prob: Float[Array, ""]


def teacher_scores(
    teacher: ModelOutput,
    target_mask_BT: Bool[Array, "B T"],
    *,
    num_tokens: int,
    block_tokens: int = 256,
) -> TeacherScores:
    """Scores of a teacher where it has a next token, block by block.

    Args:
        teacher: Hidden states, unembedding and tokens.
        target_mask_BT: True where the next token is one of the text.
        num_tokens: Of its tokenizer.
        block_tokens: Positions a block, over the whole batch.
    """

    def block(arrays):
        hidden_ND, next_ids_N = arrays
        log_probs_VN = log_softmax(teacher.logits(hidden_ND), num_tokens=num_tokens)
        probs_VN = jnp.exp(log_probs_VN)
        entropy_N = -jnp.where(probs_VN > 0, probs_VN * log_probs_VN, 0.0).sum(axis=0)
        return -pick(log_probs_VN, next_ids_N), entropy_N, probs_VN.max(axis=0)

    next_ids_BT = jnp.roll(teacher.ids_BS, -1, axis=1)
    values = map_blocks(
        block, (teacher.hidden_BSD, next_ids_BT), block_tokens=block_tokens, remat=False
    )
    count = jnp.sum(target_mask_BT, dtype=jnp.float32)
    means = [mean_over(jnp.sum(value, where=target_mask_BT), count) for value in values]
    return jax.lax.stop_gradient(TeacherScores(*means))


def sum_losses(
    losses: Sequence[Float[Array, ""]],
    weights: Sequence[float] | Float[Array, " N"],
    *,
    vocab_sizes: Sequence[int] | None = None,
) -> Float[Array, ""]:
    r"""A weighted sum of the teachers' losses.

    .. math:: \sum_i w_i \frac{\log V_i}{\log \min_j V_j} L_i

    Args:
        losses: One mean loss a teacher.
        weights: Static, or from `trust_weights`.
        vocab_sizes: Scale by the logarithm of each teacher's vocabulary; None does not.

    Raises:
        ValueError: the lists differ in length, or static weights are negative or sum to 0.
    """
    _check_lengths(len(losses), weights=weights, vocab_sizes=vocab_sizes)
    if not isinstance(weights, jax.Array):
        _check_weights(weights)
    scales = _scales(len(losses), vocab_sizes)
    parts = zip(weights, scales, losses, strict=True)
    return sum((weight * scale * loss for weight, scale, loss in parts), start=jnp.zeros(()))


def trust_weights(
    scores: Sequence[TeacherScores],
    *,
    trust: Trust = "cross_entropy",
    alpha: float = 1.0,
    vocab_sizes: Sequence[int] | None = None,
) -> Float[Array, " N"]:
    r"""Dynamic weights of the teachers: the surer one, on this batch, counts more.

    .. math:: w = \mathrm{softmax}_i(\alpha\, s_i)

    where `s` is minus the cross-entropy, minus the entropy, or the largest probability.

    Args:
        scores: From `teacher_scores`.
        trust: Which score.
        alpha: Sharpness, positive.
        vocab_sizes: Scale the scores by the logarithm of each teacher's vocabulary over that of
            the smallest; None does not.

    Returns:
        Weights that sum to 1, held constant.

    Raises:
        ValueError: `trust` is unknown, `alpha` is not positive, or the lists differ in length.
    Source: NeMo-RL's dynamic sum of teachers.
    """
    if trust not in get_args(Trust):
        raise ValueError(f"`trust` must be one of {get_args(Trust)}, got {trust!r}")
    if not alpha > 0:
        raise ValueError(f"`alpha` must be positive, got {alpha}")
    _check_lengths(len(scores), vocab_sizes=vocab_sizes)
    sign = 1.0 if trust == "max_prob" else -1.0
    scales = _scales(len(scores), vocab_sizes)
    values = [sign * scale * getattr(s, trust) for scale, s in zip(scales, scores, strict=True)]
    return jax.lax.stop_gradient(jax.nn.softmax(alpha * jnp.stack(values)))


def selected(
    losses: Sequence[Float[Array, ""]], scores: Sequence[TeacherScores]
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """The loss of the teacher of lowest cross-entropy on this batch, and which one that is.

    Raises:
        ValueError: the lists differ in length.
    """
    _check_lengths(len(losses), scores=scores)
    best = jnp.argmin(jnp.stack([score.cross_entropy for score in scores]))
    is_best_N = jnp.arange(len(losses)) == best
    # Not a product with 0, which a teacher whose loss is not finite would spoil.
    return jnp.sum(jnp.where(is_best_N, jnp.stack(losses), 0.0)), best


def mean_logits(
    teachers: Sequence[ModelOutput],
    weights: Sequence[float],
    *,
    fingerprints: Sequence[str],
) -> ModelOutput:
    r"""One teacher whose logits are the weighted mean of several's, for any loss.

    .. math:: \sum_i w_i\, h_i U_i^\top = [w_1 h_1, w_2 h_2, \ldots]\,[U_1, U_2, \ldots]^\top

    so that hidden states and unembeddings side by side are enough, and no logits are made here.

    Args:
        teachers: On the same tokens.
        weights: Normalised here.
        fingerprints: Of their tokenizers, which must be one.

    Raises:
        ValueError: tokenizers differ, the lists differ in length, weights sum to 0, or a teacher
            is given by its logits.
    """
    _check_lengths(len(teachers), weights=weights, fingerprints=fingerprints)
    _check_weights(weights)
    if len(set(fingerprints)) > 1:
        raise ValueError(
            "`fingerprints` must be of one tokenizer for a mean of logits, got "
            + ", ".join(fingerprint[:12] for fingerprint in fingerprints)
        )
    unembeddings = [t.unembedding_VD for t in teachers if t.unembedding_VD is not None]
    if len(unembeddings) < len(teachers):
        raise ValueError("`teachers` must have unembeddings, got None; average logits yourself")
    rows = min(len(unembedding) for unembedding in unembeddings)
    unembeddings = [unembedding[:rows] for unembedding in unembeddings]
    pairs = zip(weights, teachers, strict=True)
    hidden = [weight / sum(weights) * teacher.hidden_BSD for weight, teacher in pairs]
    return ModelOutput(
        jnp.concatenate(hidden, axis=2), jnp.concatenate(unembeddings, axis=1), teachers[0].ids_BS
    )


def _scales(num_teachers: int, vocab_sizes: Sequence[int] | None) -> list[float]:
    if vocab_sizes is None:
        return [1.0] * num_teachers
    logs = [math.log(size) for size in vocab_sizes]
    return [log / min(logs) for log in logs]


def _check_lengths(num_teachers: int, **others: Sequence | jax.Array | None) -> None:
    if not num_teachers:
        raise ValueError("there must be at least one teacher, got none")
    for name, values in others.items():
        if values is not None and len(values) != num_teachers:
            raise ValueError(
                f"`{name}` must have one entry a teacher ({num_teachers}), got {len(values)}"
            )


def _check_weights(weights: Sequence[float]) -> None:
    if min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise ValueError(
            f"`weights` must be at least 0 and not sum to 0, got {[float(w) for w in weights]}"
        )
