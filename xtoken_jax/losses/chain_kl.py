"""C-KL, chain KL: one side's distribution over tokens, carried exactly to the other's pieces."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.ops import log_softmax, project
from xtoken_jax.ops.piece_trie import DevicePieceTrie, next_piece_measures

# Below the smallest float32 that sums of probabilities can keep; keeps their logarithm finite.
_FLOOR = 1e-30

# Stands for the logarithm of 0 in sums of the other side's probabilities.
_LEAST_LOG = -1e4


def first_terms(
    log_p_VN: Float[Array, "V N"],
    log_q_UN: Float[Array, "U N"],
    trie: DevicePieceTrie,
    *,
    reverse: bool = False,
) -> Float[Array, " N"]:
    r"""The terms at the root, before anything of a chunk has been seen: P-KL at gamma 0.

    .. math:: \sum_u q_u \log\frac{q_u}{z_u} - 1 + \sum_u z_u, \quad
        z_u = \sum_{s \text{ begins with } u} p_s

    Columns that begin no token are dropped and `q` is renormalised within the others; `z` is short
    of 1 by the mass of tokens without pieces and is compared as it is.

    Args:
        log_p_VN: Log-probabilities over the vocabulary that is carried, -inf past its tokens.
        log_q_UN: Log-probabilities over the vocabulary that it is carried to.
        trie: Tokens of the first vocabulary by pieces of the second.
        reverse: `sum z log(z / q) - sum z + 1` instead.

    Returns:
        Nats per term, shape [N].
    """
    z_UN = project(jnp.exp(log_p_VN), trie.first)
    reachable_U1 = trie.first.reachable_U[:, None]
    log_q_UN = jnp.where(reachable_U1, jnp.maximum(log_q_UN, _LEAST_LOG), _LEAST_LOG)
    # Where q allows nothing that is reachable, what remains of it is 0 and not NaN.
    log_total_N = jnp.maximum(jax.nn.logsumexp(log_q_UN, axis=0), _LEAST_LOG / 2)
    kl_N = _kl(log_q_UN - log_total_N[None, :], z_UN, reverse=reverse)
    excess_N = z_UN.sum(axis=0) - 1.0
    return kl_N - excess_N if reverse else kl_N + excess_N


def later_terms(
    log_p_VN: Float[Array, "V N"],
    log_q_UN: Float[Array, "U N"],
    trie: DevicePieceTrie,
    node_N: Int[Array, " N"],
    *,
    reverse: bool = False,
) -> Float[Array, " N"]:
    r"""The terms after a prefix :math:`\pi` of a token's pieces.

    .. math::
        \sum_{t \text{ follows } \pi} q_t \log\frac{q_t}{p(t \mid \pi)} + q_* \log\frac{q_*}{r},
        \quad q_* = \sum_{t \text{ does not}} q_t

    where `r` is the mass, given the prefix, of the tokens that end exactly there. Where no token
    does, nothing that `p` can learn matches `q_*`, and the last term is `q_*` itself, as the
    generalised KL over what follows has it, instead of infinity: the gradient is the same.

    Args:
        log_p_VN: Log-probabilities over the vocabulary that is carried. Only ratios below the
            prefix count, so logits will do.
        log_q_UN: Log-probabilities over the vocabulary that it is carried to.
        trie: Tokens of the first vocabulary by pieces of the second.
        node_N: Node of the prefix; finite numbers that mean nothing come of 0 and of -1.
        reverse: KL from `p` to `q` instead.

    Returns:
        Nats per term, shape [N].
    """
    pieces = next_piece_measures(log_p_VN, trie, node_N)
    log_q_UN = jnp.maximum(log_q_UN, _LEAST_LOG)
    is_child_KN = pieces.ids_KN >= 0
    log_q_KN = jnp.take_along_axis(log_q_UN, jnp.maximum(pieces.ids_KN, 0), axis=0)
    log_q_KN = jnp.where(is_child_KN, log_q_KN, _LEAST_LOG)
    # Added up rather than left over from 1, which would round away a small rest.
    column_1N = jnp.arange(node_N.shape[0])[None, :]
    row_KN = jnp.where(is_child_KN, pieces.ids_KN, log_q_UN.shape[0])
    is_rest_UN = jnp.ones(log_q_UN.shape, bool).at[row_KN, column_1N].set(False, mode="drop")
    log_rest_N = jax.nn.logsumexp(jnp.where(is_rest_UN, log_q_UN, _LEAST_LOG), axis=0)
    node_N = jnp.maximum(node_N, 0)
    can_end_N = trie.ends_M[node_N] > trie.start_M[node_N]
    matched_N = jnp.where(can_end_N, log_rest_N, _LEAST_LOG)
    kl_N = _kl(
        jnp.concatenate([log_q_KN, matched_N[None, :]]),
        jnp.concatenate([pieces.probs_KN, pieces.ends_N[None, :]]),
        reverse=reverse,
    )
    return kl_N if reverse else kl_N + jnp.where(can_end_N, 0.0, jnp.exp(log_rest_N))


def chain_kl_terms(
    log_p_VN: Float[Array, "V N"],
    log_q_UN: Float[Array, "U N"],
    trie: DevicePieceTrie,
    node_N: Int[Array, " N"],
    *,
    reverse: bool = False,
) -> Float[Array, " N"]:
    """Chain KL at each term, vocabulary-major: `first_terms` at the root, `later_terms` below it.

    Both are computed for every column; where it is known which a column is, call the one alone.

    Args:
        log_p_VN: Log-probabilities over the vocabulary that is carried, -inf past its tokens.
        log_q_UN: Log-probabilities over the vocabulary that it is carried to.
        trie: Tokens of the first vocabulary by pieces of the second.
        node_N: Node of the prefix; 0 for none; -1 for no term, which gives exactly 0.
        reverse: KL from `p` to `q` instead. In student space, where the teacher is the one that
            is carried, this is the KL from teacher to student.

    Returns:
        Nats per term, shape [N], float32, unreduced; at least 0, but for rounding.
    Source: this project.
    """
    first_N = first_terms(log_p_VN, log_q_UN, trie, reverse=reverse)
    later_N = later_terms(log_p_VN, log_q_UN, trie, node_N, reverse=reverse)
    return jnp.where(node_N == 0, first_N, jnp.where(node_N > 0, later_N, 0.0))


def _kl(log_q_KN, probs_KN, *, reverse):
    """`sum q log(q / p)`, or `sum p log(p / q)`, of finite logarithms and probabilities."""
    log_p_KN = jnp.log(jnp.maximum(probs_KN, _FLOOR))
    if reverse:
        log_q_KN = jnp.where(log_q_KN > _LEAST_LOG / 2, log_q_KN, jnp.log(_FLOOR))
        return (probs_KN * (log_p_KN - log_q_KN)).sum(axis=0)
    return (jnp.exp(log_q_KN) * (log_q_KN - log_p_KN)).sum(axis=0)


def chain_kl(
    student_logits_NV: Float[Array, "N V"],
    teacher_logits_NU: Float[Array, "N U"],
    trie: DevicePieceTrie,
    node_N: Int[Array, " N"],
    mask_N: Bool[Array, " N"],
    *,
    temperature: float = 1.0,
    reverse: bool = False,
) -> Float[Array, " N"]:
    r"""Chain KL from the teacher to the student in the teacher's vocabulary, one value per term.

    .. math:: T^2 \, \mathrm{KL}\left(q \,\|\, p(\cdot \mid \pi)\right)

    The student's distribution `p` over its next token determines one over the teacher's next token,
    given that the teacher's tokens :math:`\pi` of the same text have been seen. `first_terms` and
    `later_terms` say what becomes of mass on tokens that cannot follow.

    In student space exchange the two models and pass the trie of teacher tokens by student
    pieces; `reverse=True` is then the KL from teacher to student.

    Args:
        student_logits_NV: At each term's student position.
        teacher_logits_NU: At each term's teacher position.
        trie: Student tokens by teacher pieces.
        node_N: Node of the prefix of each term, from `chain_terms`.
        mask_N: False on padding terms; they return exactly 0.
        temperature: Divides all logits; the result is scaled by its square.
        reverse: KL from the student to the teacher instead.

    Returns:
        Nats per term, shape [N], float32, unreduced; at least 0, but for rounding.

    Raises:
        ValueError: `temperature` is not positive.
    Source: this project.
    """
    if temperature <= 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}")
    kl_N = chain_kl_terms(
        log_softmax(student_logits_NV.T / temperature, num_tokens=trie.num_student_tokens),
        log_softmax(teacher_logits_NU.T / temperature, num_tokens=trie.num_teacher_tokens),
        trie,
        jnp.where(mask_N, node_N, -1),
        reverse=reverse,
    )
    return temperature**2 * kl_N


def mean_over_terms(
    kl_N: Float[Array, " N"], chunk_N: Int[Array, " N"], num_chunks: int
) -> Float[Array, " C"]:
    """The mean of each chunk's terms.

    Args:
        kl_N: One value per term.
        chunk_N: Chunk of each term; -1 for padding, which counts nowhere.
        num_chunks: C.

    Returns:
        One value per chunk, shape [C]; 0 for a chunk without terms.
    """
    counts_N = chunk_N >= 0
    at_N = jnp.maximum(chunk_N, 0)
    sums_C = jax.ops.segment_sum(jnp.where(counts_N, kl_N, 0.0), at_N, num_segments=num_chunks)
    number_C = jax.ops.segment_sum(counts_N.astype(jnp.float32), at_N, num_segments=num_chunks)
    return sums_C / jnp.maximum(number_C, 1.0)
