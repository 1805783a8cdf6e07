"""P-KL: the student's whole distribution, pushed through W, against the teacher's."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from xtoken_jax.ops import DeviceProjection, log_softmax, project

ChunkMerge = Literal["chain_rule", "first"]

# Below the smallest float32 that a product with W can keep; keeps the logarithm finite where the
# student's probability underflows, far under any probability that matters.
_FLOOR = 1e-30

# The same for what follows a chunk's first token. A chunk's log-probability is a sum over its
# tokens and may honestly be far below `log(_FLOOR)`; only impossible tokens (-inf) reach this.
_LEAST_LOG = -1e4


class ProjectedTerms(NamedTuple):
    """What P-KL needs of a chunk's first position, and what is worth reporting.

    Attributes:
        kl_N: `sum q (log q - log z)`, nats, for the teacher's `q` and the projected student `z`.
        carried_N: `sum z`: the student's mass that W carries.
        agreement_N: 1.0 where a largest entry of `q` is also one of `z`.
        unreachable_N: The teacher's mass on tokens that W cannot reach, before it is dropped.
    """

    kl_N: Float[Array, " N"]
    carried_N: Float[Array, " N"]
    agreement_N: Float[Array, " N"]
    unreachable_N: Float[Array, " N"]


def projected_terms(
    student_log_probs_VN: Float[Array, "V N"],
    teacher_logits_UN: Float[Array, "U N"],
    projection: DeviceProjection,
) -> ProjectedTerms:
    """The terms of P-KL at the first position of chunks, vocabulary-major.

    Teacher tokens that W cannot reach are dropped and the rest renormalised.
    """
    log_q_UN, unreachable_N = _reachable(teacher_logits_UN, projection)
    q_UN = jnp.exp(log_q_UN)
    z_UN = project(jnp.exp(student_log_probs_VN), projection)
    log_z_UN = jnp.log(jnp.maximum(z_UN, _FLOOR))
    # Where q is 0 its logarithm is -inf, and 0 * (-inf - x) must count as 0.
    kl_UN = jnp.where(q_UN > 0, q_UN * (jnp.where(q_UN > 0, log_q_UN, 0.0) - log_z_UN), 0.0)
    # Largest entries by comparison: a maximum is a plain reduction, an argmax is a slow one.
    is_best_UN = (q_UN == q_UN.max(axis=0, keepdims=True)) & (
        z_UN == z_UN.max(axis=0, keepdims=True)
    )
    return ProjectedTerms(
        kl_UN.sum(axis=0),
        z_UN.sum(axis=0),
        is_best_UN.any(axis=0).astype(jnp.float32),
        unreachable_N,
    )


def _reachable(teacher_logits_UN, projection):
    """The teacher's log-probabilities within the tokens that W reaches, and its mass elsewhere."""
    logits_UN = teacher_logits_UN.astype(jnp.float32)
    is_token_U1 = jnp.arange(logits_UN.shape[0])[:, None] < projection.num_teacher_tokens
    reachable_U1 = projection.reachable_U[:, None]
    reached_UN = jnp.where(reachable_U1, logits_UN, -jnp.inf)
    lost_UN = jnp.where(is_token_U1 & ~reachable_U1, logits_UN, -jnp.inf)
    # Where the teacher allows nothing that W reaches, q is 0 and not NaN.
    log_reached_N = jnp.maximum(jax.nn.logsumexp(reached_UN, axis=0), jnp.finfo(jnp.float32).min)
    unreachable_N = jax.nn.sigmoid(jax.nn.logsumexp(lost_UN, axis=0) - log_reached_N)
    return reached_UN - log_reached_N[None, :], unreachable_N


def merge_chain_rule(
    kl_N: Float[Array, "*N"],
    carried_N: Float[Array, "*N"],
    student_log_rest_N: Float[Array, "*N"],
    teacher_log_rest_N: Float[Array, "*N"],
) -> Float[Array, "*N"]:
    r"""The generalised KL of two chunk measures, from the parts of each; in any shape.

    With `m(v) = p(v) c`, where `c` is the probability of the tokens that follow the first one
    inside the chunk, the I-divergence splits into the first position and the rest:

    .. math::
        \sum_u m_T \log\frac{m_T}{m_S} - m_T + m_S
        = c_T \sum_u q \log\frac{q}{z} + c_T \log\frac{c_T}{c_S} - c_T + c_S \sum_u z

    Args:
        kl_N: `sum q log(q / z)` at the first position, nats.
        carried_N: `sum z` there.
        student_log_rest_N: `log c_S`, nats; 0 for a chunk of one token.
        teacher_log_rest_N: `log c_T`, nats.

    Returns:
        Nats per chunk; at least 0, but for rounding.
    """
    student_log_rest_N = jnp.maximum(student_log_rest_N, _LEAST_LOG)
    teacher_log_rest_N = jnp.maximum(teacher_log_rest_N, _LEAST_LOG)
    c_T_N = jnp.exp(teacher_log_rest_N)
    first_N = c_T_N * (kl_N + teacher_log_rest_N - student_log_rest_N)
    return first_N - c_T_N + jnp.exp(student_log_rest_N) * carried_N


def projected_kl(
    student_logits_NV: Float[Array, "N V"],
    teacher_logits_NU: Float[Array, "N U"],
    projection: DeviceProjection,
    mask_N: Bool[Array, " N"],
    *,
    student_log_rest_N: Float[Array, " N"] | None = None,
    teacher_log_rest_N: Float[Array, " N"] | None = None,
    temperature: float = 1.0,
) -> Float[Array, " N"]:
    r"""KL from the teacher to the student pushed through W, one value per chunk.

    .. math::
        T^2 \left[\sum_u m_T \log\frac{m_T}{m_S} - \sum_u m_T + \sum_u m_S\right], \quad
        m_S = c_S W^\top p, \quad m_T = c_T q

    Args:
        student_logits_NV: At the position that predicts each chunk's first student token.
        teacher_logits_NU: At the position that predicts its first teacher token.
        projection: W; teacher tokens that it cannot reach are dropped, the rest renormalised.
        mask_N: False on padding chunks; they return exactly 0.
        student_log_rest_N: Log-probability of the student's tokens that follow the first one
            inside the chunk, nats, at the same temperature. Without it the chunk counts as its
            first token (`c = 1`).
        teacher_log_rest_N: Likewise for the teacher.
        temperature: Divides all logits; the result is scaled by its square.

    Returns:
        Nats per chunk, shape [N], float32, unreduced; at least 0, but for rounding.

    Raises:
        ValueError: `temperature` is not positive.
    Source: X-Token (arXiv 2605.21699), P-KL. The merge of longer chunks by the chain rule is
        this project's; the whole teacher vocabulary is used, with no top-k.
    """
    if temperature <= 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}")
    terms = projected_terms(
        log_softmax(student_logits_NV.T / temperature, num_tokens=projection.num_student_tokens),
        teacher_logits_NU.T / temperature,
        projection,
    )
    zero_N = jnp.zeros_like(terms.kl_N)
    loss_N = merge_chain_rule(
        terms.kl_N,
        terms.carried_N,
        zero_N if student_log_rest_N is None else student_log_rest_N,
        zero_N if teacher_log_rest_N is None else teacher_log_rest_N,
    )
    return jnp.where(mask_N, temperature**2 * loss_N, 0.0)
