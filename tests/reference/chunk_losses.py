"""Losses of whole chunks with every option, in float64, one chunk at a time."""

import numpy as np

from tests.reference.losses import generalised_kl, softmax


def position_probs(logits_SV, first, last, num_tokens, temperature):
    """Distributions that predict tokens `first:last`, `[n, V]`."""
    rows = [softmax(logits_SV[i - 1], num_tokens, temperature) for i in range(first, last)]
    return np.array(rows)[:, :num_tokens]


def used_columns(W, *, unreachable="mask", top=None):
    """True for the teacher tokens that P-KL compares on."""
    used = np.ones(W.shape[1], bool) if unreachable == "keep" else W.sum(axis=0) > 0
    return used if top is None else used & top


def teacher_within(q, W, *, unreachable="mask", top=None, fold=None):
    """The teacher's distribution on the columns in use, normalised there."""
    if unreachable == "fold":
        folded = np.zeros_like(q)
        for id, target in enumerate(fold):
            if target >= 0:
                folded[target] += q[id]
        q = folded
    kept = np.where(used_columns(W, unreachable=unreachable, top=top), q, 0.0)
    return kept / kept.sum()


def student_within(p, W, *, unreachable="mask", top=None):
    """The student carried to the columns in use, and what its logarithm is taken of."""
    z = p @ W
    if top is not None:
        z = np.where(used_columns(W, unreachable=unreachable, top=top), z, 0.0)
        z = z / z.sum()
    return z, z + (1e-10 if unreachable == "keep" else 0.0)


def p_kl(p_N, q_N, rests, W, *, reverse=False, unreachable="mask", top=None, fold=None):
    """P-KL of a chunk whose first positions are `p_N[0]`, `q_N[0]`; `rests` are c_S and c_T."""
    options = {"unreachable": unreachable, "top": top}
    q = teacher_within(q_N[0], W, fold=fold, **options)
    z, z_in_log = student_within(p_N[0], W, **options)
    c_S, c_T = rests
    used = used_columns(W, **options)
    m_T, m_S, m_S_in_log = c_T * q[used], c_S * z[used], c_S * z_in_log[used]
    if reverse:
        return generalised_kl(m_S, m_T)
    positive = m_T > 0
    log_ratio = np.log(m_T[positive] / m_S_in_log[positive])
    return (m_T[positive] * log_ratio).sum() - m_T.sum() + c_S * z.sum()


def p_kl_mean(p_N, q_N, W, *, reverse=False, unreachable="mask", top=None):
    """P-KL of means over a chunk's positions, as the reference implementation has it."""
    options = {"unreachable": unreachable, "top": top}
    used = used_columns(W, **options)
    z = np.where(used, (p_N @ W).mean(axis=0), 0.0)
    log_z = np.log(z / z.sum() + 1e-10)[used]
    log_q = np.mean([np.log(teacher_within(q, W, **options)[used]) for q in q_N], axis=0)
    if reverse:
        return (z[used] / z.sum() * (log_z - log_q)).sum()
    return (np.exp(log_q) * (log_q - log_z)).sum()


def hybrid(m_S, m_T, pairs, *, totals, reverse=False):
    """GOLD or H-KL of two measures: KL on the pairs, L1 between the sorted remainders."""
    student_ids, teacher_ids = pairs
    s, t = m_S[student_ids], m_T[teacher_ids]
    kl = (s * np.log(s / t)).sum() if reverse else (t * np.log(t / s)).sum()
    total_S, total_T = totals
    kl += total_T - total_S if reverse else total_S - total_T
    rest_S = np.sort(np.delete(m_S, student_ids))[::-1]
    rest_T = np.sort(np.delete(m_T, teacher_ids))[::-1]
    length = min(len(rest_S), len(rest_T))
    return kl + np.abs(rest_S[:length] - rest_T[:length]).sum()


def uld(m_S, m_T):
    """L1 between two sorted measures, the shorter padded with zeros."""
    length = max(len(m_S), len(m_T))
    padded = [np.concatenate([np.sort(m)[::-1], np.zeros(length - len(m))]) for m in (m_S, m_T)]
    return np.abs(padded[0] - padded[1]).sum()
