"""KL between models of one tokenizer, and the part of it that the other losses share."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from xtoken_jax.ops import log_softmax

# What stands for the logarithm of an impossible token's probability, `-inf`. Far under anything
# that finite logits give, so it costs much and not infinity, and its gradient is finite.
LEAST_LOG = -1e4


def kl_terms(
    log_m_S_VN: Float[Array, "V N"],
    log_m_T_VN: Float[Array, "V N"],
    *,
    reverse: bool = False,
) -> Float[Array, " N"]:
    r"""Sums over tokens that both sides share, vocabulary-major.

    .. math:: \sum_v m_T \log\frac{m_T}{m_S}

    Args:
        log_m_S_VN: Logarithms of the student's measure, nats; `-inf` counts as -1e4.
        log_m_T_VN: The teacher's.
        reverse: With the roles exchanged.

    Returns:
        Nats, shape [N]. The KL where both sides sum to 1; else what a generalised KL adds the
        totals to.
    """
    log_m_S_VN = jnp.maximum(log_m_S_VN, LEAST_LOG)
    log_m_T_VN = jnp.maximum(log_m_T_VN, LEAST_LOG)
    if reverse:
        log_m_S_VN, log_m_T_VN = log_m_T_VN, log_m_S_VN
    return (jnp.exp(log_m_T_VN) * (log_m_T_VN - log_m_S_VN)).sum(axis=0)


def same_tokenizer_kl(
    student_logits_NV: Float[Array, "N V"],
    teacher_logits_NU: Float[Array, "N U"],
    mask_N: Bool[Array, " N"],
    *,
    num_tokens: int | None = None,
    temperature: float = 1.0,
    reverse: bool = False,
) -> Float[Array, " N"]:
    r"""KL from the teacher to the student at each position, no projection between them.

    .. math:: T^2 \sum_v q_v \log\frac{q_v}{p_v}

    Args:
        student_logits_NV: At each position, before softmax.
        teacher_logits_NU: The teacher's at the same positions, token by token the same
            vocabulary; the two may be padded to different numbers of columns.
        mask_N: False where a position does not count; it returns exactly 0.
        num_tokens: Columns from here on are padding and get no probability; by default there is
            none.
        temperature: Divides all logits; the result is scaled by its square.
        reverse: KL from the student to the teacher.

    Returns:
        Nats per position, shape [N], float32, unreduced; at least 0, but for rounding.

    Raises:
        ValueError: `temperature` is not positive, or `num_tokens` does not fit both sides.
    Source: Hinton et al. (arXiv 1503.02531). `same_token_ids` says whether two tokenizers allow it.
    """
    check_temperature(temperature)
    widths = student_logits_NV.shape[1], teacher_logits_NU.shape[1]
    if num_tokens is None and widths[0] != widths[1]:
        raise ValueError(f"`num_tokens` must be given for logits of {widths} columns, got None")
    num_tokens = widths[0] if num_tokens is None else num_tokens
    if not 1 <= num_tokens <= min(widths):
        raise ValueError(f"`num_tokens` must be in [1, {min(widths)}], got {num_tokens}")
    log_p_VN, log_q_VN = (
        log_softmax(logits_NV[:, :num_tokens].T / temperature, num_tokens=num_tokens)
        for logits_NV in (student_logits_NV, teacher_logits_NU)
    )
    loss_N = temperature**2 * kl_terms(log_p_VN, log_q_VN, reverse=reverse)
    return jnp.where(mask_N, loss_N, 0.0)


def check_temperature(temperature: float) -> None:
    """Raise a ValueError unless it is positive."""
    if not 0 < temperature < float("inf"):
        raise ValueError(f"`temperature` must be positive and finite, got {temperature}")
