"""GOLD and H-KL: KL on the tokens that both vocabularies share, sorted L1 on the others."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from xtoken_jax.losses.same_tokenizer import check_temperature, kl_terms
from xtoken_jax.losses.sorted_l1 import sorted_l1
from xtoken_jax.ops import log_softmax
from xtoken_jax.ops.common_set import DeviceCommonSet


def hybrid_terms(
    log_p_VN: Float[Array, "V N"],
    log_q_UN: Float[Array, "U N"],
    common: DeviceCommonSet,
    *,
    log_c_S_N: Float[Array, " N"],
    log_c_T_N: Float[Array, " N"],
    uncommon_top_k: int | None = None,
    reverse: bool = False,
) -> Float[Array, " N"]:
    r"""GOLD or H-KL of two chunk measures, vocabulary-major.

    .. math::
        \sum_{(s, t)} m_T(t) \log\frac{m_T(t)}{m_S(s)} - c_T + c_S
        + \sum_k |m_{S,(k)} - m_{T,(k)}|

    with `m_S = c_S p` and `m_T = c_T q`; the first sum is over the pairs, the last over the tokens
    in no pair, each side in descending order, as far as the shorter reaches. Nothing is
    renormalised within the pairs. `c_T` and `c_S` are the totals over whole vocabularies, which
    makes the first part of a chunk of one token to one GOLD's plain KL; over part of a vocabulary
    it may be negative.

    Args:
        log_p_VN: The student's log-probabilities at the chunk's first token; `-inf` on rows of
            padding. The `mean` merge gives means of log-probabilities over the chunk instead, with
            `log c` 0: they sum to less than 1 and are not renormalised.
        log_q_UN: The teacher's.
        common: The pairs.
        log_c_S_N: Log-probability of what follows the first token inside the chunk, nats.
        log_c_T_N: Likewise for the teacher.
        uncommon_top_k: Sort only so many of the largest of each side; all by default.
        reverse: The first part with the roles exchanged.

    Returns:
        Nats and, for the second part, probability mass, added up; shape [N].

    Raises:
        ValueError: `common` is of other vocabularies, or `uncommon_top_k` is out of range.
    """
    _check(common, log_p_VN.shape[0], log_q_UN.shape[0], uncommon_top_k)
    # In the student's rows: a row of no pair counts as impossible on both sides, which adds 0.
    is_common_V1 = common.is_common_V[:, None]
    paired_VN = log_q_UN.at[common.teacher_of_student_V].get(mode="promise_in_bounds")
    kl_N = kl_terms(
        jnp.where(is_common_V1, log_p_VN + log_c_S_N[None, :], -jnp.inf),
        jnp.where(is_common_V1, paired_VN + log_c_T_N[None, :], -jnp.inf),
        reverse=reverse,
    )
    excess_N = jnp.exp(log_c_S_N) - jnp.exp(log_c_T_N)
    uncommon_N = sorted_l1(
        jnp.exp(_rows(log_p_VN, common.student_rest_R) + log_c_S_N[None, :]),
        jnp.exp(_rows(log_q_UN, common.teacher_rest_Q) + log_c_T_N[None, :]),
        shorter="truncate",
        top_k=uncommon_top_k,
    )
    return kl_N + (-excess_N if reverse else excess_N) + uncommon_N


def _rows(values_VN, ids_R):
    # Ids are checked on the host, so that neither direction need clamp or sort them again.
    return values_VN.at[ids_R].get(unique_indices=True, mode="promise_in_bounds")


def _check(common, num_rows, num_columns, uncommon_top_k):
    sizes = common.is_common_V.shape[0], common.is_common_U.shape[0]
    if sizes != (num_rows, num_columns):
        raise ValueError(
            f"`common` must be of vocabularies as large as the logits' {num_rows} and "
            f"{num_columns}, got {sizes[0]} and {sizes[1]}"
        )
    most = max(common.num_student_tokens, common.num_teacher_tokens)
    if uncommon_top_k is not None and not 1 <= uncommon_top_k <= most:
        raise ValueError(f"`uncommon_top_k` must be in [1, {most}], got {uncommon_top_k}")


def hybrid_kl(
    student_logits_NV: Float[Array, "N V"],
    teacher_logits_NU: Float[Array, "N U"],
    common: DeviceCommonSet,
    mask_N: Bool[Array, " N"],
    *,
    student_log_rest_N: Float[Array, " N"] | None = None,
    teacher_log_rest_N: Float[Array, " N"] | None = None,
    temperature: float = 1.0,
    uncommon_top_k: int | None = None,
    reverse: bool = False,
) -> Float[Array, " N"]:
    r"""KL on paired tokens plus L1 between the sorted rest, one value per chunk.

    .. math::
        T^2 \left[\sum_{(s, t)} m_T(t) \log\frac{m_T(t)}{m_S(s)} - c_T + c_S
        + \sum_k |m_{S,(k)} - m_{T,(k)}|\right]

    GOLD with the pairs of `exact_pairs`, H-KL with those of `hybrid_pairs`. `m_S = c_S p` and
    `m_T = c_T q` are not renormalised within the pairs, so every student token in no pair is
    pushed down by the first part: its logit has the gradient `p` times the teacher's mass on
    the pairs.

    Args:
        student_logits_NV: At the position that predicts each chunk's first student token.
        teacher_logits_NU: At the position that predicts its first teacher token.
        common: The pairs, for logits of these widths.
        mask_N: False on padding chunks; they return exactly 0.
        student_log_rest_N: Log-probability of the student's tokens that follow the first one
            inside the chunk, nats, at the same temperature; 0 by default, which counts the first
            token alone.
        teacher_log_rest_N: Likewise for the teacher.
        temperature: Divides all logits; the result is scaled by its square.
        uncommon_top_k: Sort only so many of the largest of each side; all by default.
        reverse: KL from the student to the teacher on the pairs; the L1 has no direction.

    Returns:
        Nats and, for the L1, probability mass, added up; shape [N], float32, unreduced. May be
        negative where the pairs are not the whole vocabulary.

    Raises:
        ValueError: `temperature` is not positive, `common` is of other vocabularies, or
            `uncommon_top_k` is less than 1 or above the larger vocabulary.
    Source: X-Token (arXiv 2605.21699), H-KL; GOLD as TRL has it. The merge of longer chunks by
        the chain rule is this project's.
    """
    check_temperature(temperature)
    zero_N = jnp.zeros(student_logits_NV.shape[0])
    loss_N = hybrid_terms(
        log_softmax(student_logits_NV.T / temperature, num_tokens=common.num_student_tokens),
        log_softmax(teacher_logits_NU.T / temperature, num_tokens=common.num_teacher_tokens),
        common,
        log_c_S_N=zero_N if student_log_rest_N is None else student_log_rest_N,
        log_c_T_N=zero_N if teacher_log_rest_N is None else teacher_log_rest_N,
        uncommon_top_k=uncommon_top_k,
        reverse=reverse,
    )
    return jnp.where(mask_N, temperature**2 * loss_N, 0.0)
