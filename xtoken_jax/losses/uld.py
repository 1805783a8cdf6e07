"""ULD: both whole distributions in descending order, whatever their tokens are."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from xtoken_jax.losses.same_tokenizer import check_temperature
from xtoken_jax.losses.sorted_l1 import sorted_l1
from xtoken_jax.ops import log_softmax


def uld_terms(
    log_p_VN: Float[Array, "V N"],
    log_q_UN: Float[Array, "U N"],
    *,
    log_c_S_N: Float[Array, " N"],
    log_c_T_N: Float[Array, " N"],
    top_k: int | None = None,
) -> Float[Array, " N"]:
    r"""L1 between two chunk measures in descending order, vocabulary-major.

    .. math:: \sum_k |m_{S,(k)} - m_{T,(k)}|, \quad m_S = c_S p, \quad m_T = c_T q

    Args:
        log_p_VN: The student's, over its tokens alone: rows of padding would be sorted too. Means
            of log-probabilities serve as well; they are not renormalised.
        log_q_UN: The teacher's.
        log_c_S_N: Log-probability of what follows the first token inside the chunk, nats; 0 for a
            distribution or a mean.
        log_c_T_N: Likewise for the teacher.
        top_k: Only the largest `top_k` of each side count; all by default.

    Returns:
        Probability mass, not nats: at most `c_S + c_T`, shape [N].
    """
    return sorted_l1(
        jnp.exp(log_p_VN + log_c_S_N[None, :]),
        jnp.exp(log_q_UN + log_c_T_N[None, :]),
        shorter="pad",
        top_k=top_k,
    )


def uld(
    student_logits_NV: Float[Array, "N V"],
    teacher_logits_NU: Float[Array, "N U"],
    mask_N: Bool[Array, " N"],
    *,
    student_log_rest_N: Float[Array, " N"] | None = None,
    teacher_log_rest_N: Float[Array, " N"] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Float[Array, " N"]:
    r"""L1 between the whole distributions in descending order, the shorter padded with zeros.

    .. math:: T^2 \sum_k |m_{S,(k)} - m_{T,(k)}|, \quad m_S = c_S p, \quad m_T = c_T q

    A distance, so there is no reverse.

    Args:
        student_logits_NV: At the position that predicts each chunk's first student token; the
            tokenizer's columns alone.
        teacher_logits_NU: Likewise for the teacher.
        mask_N: False on padding chunks; they return exactly 0.
        student_log_rest_N: Log-probability of the student's tokens that follow the first one
            inside the chunk, nats, at the same temperature; 0 by default.
        teacher_log_rest_N: Likewise for the teacher.
        temperature: Divides all logits; the result is scaled by its square.
        top_k: Only the largest `top_k` of each side count; all by default.

    Returns:
        Probability mass, not nats: between 0 and `2 T**2` per chunk, shape [N], float32.

    Raises:
        ValueError: `temperature` is not positive, or `top_k` is less than 1 or above the larger
            vocabulary.
    Source: Boizard et al. (arXiv 2402.12030), the Wasserstein term of ULD, of whole chunks.
    """
    check_temperature(temperature)
    sizes = student_logits_NV.shape[1], teacher_logits_NU.shape[1]
    if top_k is not None and not 1 <= top_k <= max(sizes):
        raise ValueError(f"`top_k` must be in [1, {max(sizes)}], got {top_k}")
    zero_N = jnp.zeros(student_logits_NV.shape[0])
    loss_N = uld_terms(
        log_softmax(student_logits_NV.T / temperature, num_tokens=sizes[0]),
        log_softmax(teacher_logits_NU.T / temperature, num_tokens=sizes[1]),
        log_c_S_N=zero_N if student_log_rest_N is None else student_log_rest_N,
        log_c_T_N=zero_N if teacher_log_rest_N is None else teacher_log_rest_N,
        top_k=top_k,
    )
    return jnp.where(mask_N, temperature**2 * loss_N, 0.0)
