"""P-KL and cross-entropy of a block of positions, and their gradient, written out.

With the exact part of W the teacher's logits are gathered into the student's rows: there `log z` is
a logit less a number, and the gradient one expression of both sides' probabilities. So few arrays
as large as a block's logits are made, and each is read once or twice.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.losses.columns import FLOOR
from xtoken_jax.losses.token_walk import at_tokens, log_total
from xtoken_jax.ops import pick
from xtoken_jax.ops.gather_sum import gathered
from xtoken_jax.ops.split_projection import SplitProjection

# Below every sum of finite logits' exponentials; keeps what is read of an impossible one finite.
_LEAST_LOGIT = -1e30


class PositionTerms(NamedTuple):
    """Of student positions: `[N]` of a block, `[B, S]` of a batch.

    Attributes:
        next_log_prob: Of the next token, nats.
        kl: `sum q log(q / z)`, where a chunk begins right after the position.
        carried: `sum z` there.
        agreement: 1.0 where a largest entry of `q` is also one of `z`.
        unreachable: The teacher's mass on tokens that W cannot reach.
    """

    next_log_prob: Float[Array, "*N"]
    kl: Float[Array, "*N"]
    carried: Float[Array, "*N"]
    agreement: Float[Array, "*N"]
    unreachable: Float[Array, "*N"]


class Totals(NamedTuple):
    """Logarithms of what normalises both sides; `inf` for a teacher that reaches nothing."""

    student: Float[Array, "*N"]
    teacher: Float[Array, "*N"]


class Ups(NamedTuple):
    """Derivatives of the loss by the terms; None for the next token's: it does not count."""

    kl: Float[Array, "*N"]
    carried: Float[Array, "*N"]
    next_log_prob: Float[Array, "*N"] | None = None


class Probs(NamedTuple):
    """Both sides' probabilities, each still to be multiplied by its `inverse`.

    They are kept as the exponentials that their sums are of, so that nothing as large is made
    again to normalise them.

    Attributes:
        student_VN: The student's.
        paired_VN: The teacher's of the exact tokens, in the student's rows.
        rest_RN: The teacher's of the other columns.
        student_inverse_N: 1 over the student's total.
        teacher_inverse_N: 1 over the teacher's, 0 where it reaches nothing.
        reaches_N: False there.
    """

    student_VN: Float[Array, "V N"]
    paired_VN: Float[Array, "V N"]
    rest_RN: Float[Array, "R N"]
    student_inverse_N: Float[Array, " N"]
    teacher_inverse_N: Float[Array, " N"]
    reaches_N: Bool[Array, " N"]


def terms_at(
    logits_VN: Float[Array, "V N"],
    teacher_UN: Float[Array, "U N"],
    next_ids_N: Int[Array, " N"],
    split: SplitProjection,
) -> tuple[PositionTerms, Totals, Probs]:
    """The terms at some positions, and what their gradient is made of."""
    paired_VN, rest_RN = _teacher_logits(teacher_UN, split)
    is_exact_V1 = split.is_exact_V[:, None]
    student_max_N = logits_VN.max(axis=0)
    teacher_max_N = jnp.maximum(paired_VN.max(axis=0), rest_RN.max(axis=0))
    teacher_max_N = jnp.maximum(teacher_max_N, _LEAST_LOGIT)
    p_VN = jnp.exp(logits_VN - student_max_N[None, :])
    q_VN = jnp.exp(jnp.where(is_exact_V1, paired_VN - teacher_max_N[None, :], -jnp.inf))
    q_RN = jnp.exp(rest_RN - teacher_max_N[None, :])
    p_total_N, q_total_N = p_VN.sum(axis=0), q_VN.sum(axis=0) + q_RN.sum(axis=0)
    reaches_N = q_total_N > 0
    totals = Totals(
        student_max_N + jnp.log(p_total_N),
        jnp.where(reaches_N, teacher_max_N + jnp.log(q_total_N), jnp.inf),
    )
    q_inverse_N = jnp.where(reaches_N, 1 / q_total_N, 0.0)
    probs = Probs(p_VN, q_VN, q_RN, 1 / p_total_N, q_inverse_N, reaches_N)
    z_RN = _z_of_rest(probs, split)
    log_p_VN = jnp.maximum(logits_VN - totals.student[None, :], jnp.log(FLOOR))
    log_q_over_z_N = _expectation(q_VN, paired_VN - log_p_VN)
    log_q_over_z_N += _expectation(q_RN, rest_RN - jnp.log(jnp.maximum(z_RN, FLOOR)))
    terms = PositionTerms(
        pick(logits_VN, next_ids_N) - totals.student,
        jnp.where(reaches_N, probs.teacher_inverse_N * log_q_over_z_N - totals.teacher, 0.0),
        1.0 - (p_VN[split.empty_row_M].sum(axis=0) * probs.student_inverse_N),
        _agreement(probs, z_RN, split),
        _unreachable(teacher_UN, split, totals),
    )
    return terms, totals, probs


def probs_at(
    logits_VN: Float[Array, "V N"],
    teacher_UN: Float[Array, "U N"],
    totals: Totals,
    split: SplitProjection,
) -> Probs:
    """The probabilities again, from totals that are known."""
    p_VN = jnp.exp(logits_VN - totals.student[None, :])
    paired_VN, rest_RN = _teacher_logits(teacher_UN, split)
    log_q_VN = paired_VN - totals.teacher[None, :]
    q_VN = jnp.exp(jnp.where(split.is_exact_V[:, None], log_q_VN, -jnp.inf))
    q_RN = jnp.exp(rest_RN - totals.teacher[None, :])
    one_N = jnp.ones_like(totals.student)
    return Probs(p_VN, q_VN, q_RN, one_N, one_N, totals.teacher < jnp.inf)


def gradient_at(
    probs: Probs,
    next_ids_N: Int[Array, " N"],
    carried_N: Float[Array, " N"],
    ups: Ups,
    split: SplitProjection,
) -> Float[Array, "V N"]:
    r"""The loss's gradient by the student's logits.

    For an exact token :math:`\partial kl / \partial x_v` is :math:`p_v - q_v`; an entry of the rest
    takes :math:`p_v W_{vu} q_u / z_u` for :math:`q_v`.
    """
    z_RN = _z_of_rest(probs, split)
    q_RN = probs.rest_RN * probs.teacher_inverse_N[None, :]
    # A floored `z` has no gradient, and so its share of `q` pushes nothing down.
    ratio_RN = jnp.where(z_RN > FLOOR, q_RN / jnp.maximum(z_RN, FLOOR), 0.0)
    pulled_QN = gathered(-ups.kl[None, :] * ratio_RN, split.rest_to_row)
    floored_N = jnp.where(z_RN > FLOOR, 0.0, q_RN).sum(axis=0)
    push_N = ups.kl * (probs.reaches_N - floored_N)
    push_N -= ups.carried * carried_N
    if ups.next_log_prob is not None:
        push_N -= ups.next_log_prob
    of_p_VN = push_N[None, :] + ups.carried[None, :] * split.carries_V[:, None]
    of_p_VN += _rows(pulled_QN, split.rest_row_V)
    up_VN = probs.student_VN * probs.student_inverse_N[None, :] * of_p_VN
    up_VN -= (ups.kl * probs.teacher_inverse_N)[None, :] * probs.paired_VN
    if ups.next_log_prob is None:
        return up_VN
    return at_tokens(up_VN, next_ids_N, ups.next_log_prob)


def _teacher_logits(teacher_UN, split):
    """The teacher's logits at exact tokens, in the student's rows, and at the other columns."""
    return _rows(teacher_UN, split.exact_teacher_V), _rows(teacher_UN, split.rest_column_R)


def _rows(values_VN, ids_R):
    return values_VN.at[ids_R].get(mode="promise_in_bounds")


def _z_of_rest(probs, split):
    return gathered(probs.student_VN, split.rest_to_column) * probs.student_inverse_N[None, :]


def _expectation(q_RN, values_RN):
    return jnp.where(q_RN > 0, q_RN * values_RN, 0.0).sum(axis=0)


def _agreement(probs, z_RN, split):
    """Whether a column is the largest of both."""
    p_VN = probs.student_VN * probs.student_inverse_N[None, :]
    z_VN = jnp.where(split.is_exact_V[:, None], p_VN, -1.0)
    sides = (probs.paired_VN, probs.rest_RN), (z_VN, z_RN)
    best = [jnp.maximum(*(part.max(axis=0) for part in side))[None, :] for side in sides]
    is_best = [((q == best[0]) & (z == best[1])).any(axis=0) for q, z in zip(*sides, strict=True)]
    return (is_best[0] | is_best[1]).astype(jnp.float32)


def _unreachable(teacher_UN, split, totals):
    if not split.lost_column_L.size:
        return jnp.zeros_like(totals.teacher)
    lost_LN = jnp.maximum(_rows(teacher_UN, split.lost_column_L), _LEAST_LOGIT)
    reached_N = jnp.where(totals.teacher == jnp.inf, -jnp.inf, totals.teacher)
    return jax.nn.sigmoid(log_total(lost_LN) - reached_N)
