"""P-KL: the student's whole distribution, pushed through W, against the teacher's."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from xtoken_jax.losses.columns import (
    FLOOR,
    KEPT,
    Columns,
    columns_in_use,
    projected_within,
    teacher_within,
)
from xtoken_jax.ops import DeviceProjection, log_softmax

ChunkMerge = Literal["chain_rule", "first", "mean"]
# A chunk's log-probability is a sum over its tokens and may honestly be far below the log of
# `FLOOR`; only impossible tokens (-inf) reach this.
_LEAST_LOG = -1e4


class ProjectedTerms(NamedTuple):
    """What P-KL needs of a chunk's first position, and what is worth reporting.

    Attributes:
        kl_N: `sum q (log q - log z)`, nats, for the teacher's `q` and the projected student `z`; of
            the reverse KL `sum z (log z - log q)`.
        carried_N: `sum z`: the student's mass that W carries.
        agreement_N: 1.0 where a largest entry of `q` is also one of `z`.
        unreachable_N: The teacher's mass on tokens that W cannot reach.
    """

    kl_N: Float[Array, " N"]
    carried_N: Float[Array, " N"]
    agreement_N: Float[Array, " N"]
    unreachable_N: Float[Array, " N"]


def projected_terms(
    student_log_probs_VN: Float[Array, "V N"],
    teacher_logits_UN: Float[Array, "U N"],
    projection: DeviceProjection,
    columns: Columns,
    *,
    reverse: bool = False,
) -> ProjectedTerms:
    """The terms of P-KL at the first position of chunks, vocabulary-major."""
    log_q_UN, unreachable_N = teacher_within(teacher_logits_UN, projection, columns)
    q_UN = jnp.exp(log_q_UN)
    z_UN, log_z_UN = projected_within(jnp.exp(student_log_probs_VN), projection, columns)
    # Where q is 0 its logarithm is -inf, and 0 * (-inf - x) must count as 0.
    safe_log_q_UN = jnp.where(q_UN > 0, log_q_UN, jnp.log(FLOOR) if reverse else 0.0)
    difference_UN = safe_log_q_UN - log_z_UN
    return ProjectedTerms(
        _sum(-z_UN * difference_UN if reverse else q_UN * difference_UN),
        _sum(z_UN),
        _agreement(q_UN, z_UN),
        unreachable_N,
    )


def _sum(values_UN):
    return values_UN.sum(axis=0)


def _agreement(q_UN, z_UN):
    # Largest entries by comparison: a maximum is a plain reduction, an argmax is a slow one.
    is_best_UN = (q_UN == q_UN.max(axis=0, keepdims=True)) & (
        z_UN == z_UN.max(axis=0, keepdims=True)
    )
    return is_best_UN.any(axis=0).astype(jnp.float32)


def merge_chain_rule(
    kl_N: Float[Array, "*N"],
    carried_N: Float[Array, "*N"],
    student_log_rest_N: Float[Array, "*N"],
    teacher_log_rest_N: Float[Array, "*N"],
    *,
    reverse: bool = False,
) -> Float[Array, "*N"]:
    r"""The generalised KL of two chunk measures, from the parts of each; in any shape.

    With `m(v) = p(v) c`, where `c` is the probability of the tokens that follow the first one
    inside the chunk, the I-divergence splits into the first position and the rest:

    .. math::
        \sum_u m_T \log\frac{m_T}{m_S} - m_T + m_S
        = c_T \sum_u q \log\frac{q}{z} + c_T \log\frac{c_T}{c_S} - c_T + c_S \sum_u z

    and the reverse one likewise, with the sides exchanged.

    Args:
        kl_N: `sum q log(q / z)` at the first position, nats; of the reverse `sum z log(z / q)`.
        carried_N: `sum z` there.
        student_log_rest_N: `log c_S`, nats; 0 for a chunk of one token.
        teacher_log_rest_N: `log c_T`, nats.
        reverse: KL from the student to the teacher.

    Returns:
        Nats per chunk; at least 0, but for rounding.
    """
    student_log_rest_N = jnp.maximum(student_log_rest_N, _LEAST_LOG)
    teacher_log_rest_N = jnp.maximum(teacher_log_rest_N, _LEAST_LOG)
    c_S_N, c_T_N = jnp.exp(student_log_rest_N), jnp.exp(teacher_log_rest_N)
    log_ratio_N = teacher_log_rest_N - student_log_rest_N
    if reverse:
        return c_S_N * (kl_N - carried_N * (log_ratio_N + 1.0)) + c_T_N
    return c_T_N * (kl_N + log_ratio_N - 1.0) + c_S_N * carried_N


def mean_projected_terms(
    mean_probs_VN: Float[Array, "V N"],
    mean_log_q_UN: Float[Array, "U N"],
    projection: DeviceProjection,
    columns: Columns,
    *,
    reverse: bool = False,
) -> ProjectedTerms:
    r"""P-KL of chunks merged by the mean, as the reference implementation does.

    .. math:: \sum_u e^{\bar\ell_u} \left(\bar\ell_u - \log(\bar z_u + 10^{-10})\right)

    The student's :math:`\bar z` is the mean of its projected probabilities, normalised within the
    columns in use; the teacher's :math:`\bar\ell` the mean of its log-probabilities within them,
    not normalised again, so that the value can be negative.

    Args:
        mean_probs_VN: Mean over the chunk's student positions.
        mean_log_q_UN: Mean over its teacher positions, of `teacher_within`.
        projection: W.
        columns: In use.
        reverse: KL from the student to the teacher.
    """
    columns = columns._replace(floor=KEPT, renormalise=True)
    z_UN, log_z_UN = projected_within(mean_probs_VN, projection, columns)
    q_UN = jnp.exp(mean_log_q_UN)
    difference_UN = jnp.maximum(mean_log_q_UN, jnp.log(FLOOR)) - log_z_UN
    return ProjectedTerms(
        _sum(-z_UN * difference_UN if reverse else q_UN * difference_UN),
        _sum(z_UN),
        _agreement(q_UN, z_UN),
        jnp.zeros(q_UN.shape[1]),
    )


def projected_kl(
    student_logits_NV: Float[Array, "N V"],
    teacher_logits_NU: Float[Array, "N U"],
    projection: DeviceProjection,
    mask_N: Bool[Array, " N"],
    *,
    student_log_rest_N: Float[Array, " N"] | None = None,
    teacher_log_rest_N: Float[Array, " N"] | None = None,
    temperature: float = 1.0,
    columns: Columns | None = None,
    reverse: bool = False,
) -> Float[Array, " N"]:
    r"""KL from the teacher to the student pushed through W, one value per chunk.

    .. math::
        T^2 \left[\sum_u m_T \log\frac{m_T}{m_S} - \sum_u m_T + \sum_u m_S\right], \quad
        m_S = c_S W^\top p, \quad m_T = c_T q

    Args:
        student_logits_NV: At the position that predicts each chunk's first student token.
        teacher_logits_NU: At the position that predicts its first teacher token.
        projection: W.
        mask_N: False on padding chunks; they return exactly 0.
        student_log_rest_N: Log-probability of the student's tokens that follow the first one
            inside the chunk, nats, at the same temperature. Without it the chunk counts as its
            first token (`c = 1`).
        teacher_log_rest_N: Likewise for the teacher.
        temperature: Divides all logits; the result is scaled by its square.
        columns: From `columns_in_use`; by default teacher tokens that W cannot reach are dropped
            and the rest renormalised.
        reverse: KL from the student to the teacher instead.

    Returns:
        Nats per chunk, shape [N], float32, unreduced; at least 0, but for rounding.

    Raises:
        ValueError: `temperature` is not positive.
    Source: X-Token (arXiv 2605.21699), P-KL. The merge of longer chunks by the chain rule is
        this project's; without `columns` the whole teacher vocabulary is used, with no top-k.
    """
    if temperature <= 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}")
    terms = projected_terms(
        log_softmax(student_logits_NV.T / temperature, num_tokens=projection.num_student_tokens),
        teacher_logits_NU.T / temperature,
        projection,
        columns_in_use(projection) if columns is None else columns,
        reverse=reverse,
    )
    zero_N = jnp.zeros_like(terms.kl_N)
    loss_N = merge_chain_rule(
        terms.kl_N,
        terms.carried_N,
        zero_N if student_log_rest_N is None else student_log_rest_N,
        zero_N if teacher_log_rest_N is None else teacher_log_rest_N,
        reverse=reverse,
    )
    return jnp.where(mask_N, temperature**2 * loss_N, 0.0)
