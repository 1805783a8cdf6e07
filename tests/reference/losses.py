"""P-KL and cross-entropy in float64 NumPy, one chunk at a time."""

import numpy as np


def softmax(logits, num_tokens, temperature=1.0):
    """Over the first `num_tokens` entries; the others get 0."""
    scaled = np.asarray(logits, np.float64)[:num_tokens] / temperature
    exp = np.exp(scaled - scaled.max())
    return np.concatenate([exp / exp.sum(), np.zeros(len(logits) - num_tokens)])


def cross_entropy(logits, target, num_tokens):
    return -np.log(softmax(logits, num_tokens)[target])


def generalised_kl(m_T, m_S):
    """I-divergence of two measures; 0 log 0 is 0."""
    total = 0.0
    for t, s in zip(m_T, m_S, strict=True):
        total += s - t
        if t > 0:
            total += t * np.log(t / s)
    return total


def chunk_measure(logits_SV, ids, first, last, num_tokens, temperature=1.0):
    """Distribution at the chunk's first token times the probability of the tokens after it.

    The chunk is tokens `first:last`; the logits at position `i - 1` predict token `i`.
    """
    probs = [softmax(logits_SV[i - 1], num_tokens, temperature) for i in range(first, last)]
    rest = 1.0
    for offset in range(1, last - first):
        rest *= probs[offset][ids[first + offset]]
    return probs[0] * rest


def projected_kl(m_S, m_T, W, temperature=1.0):
    """P-KL of two chunk measures.

    Columns that W cannot reach are dropped, the teacher's rest scaled up to the mass it had.
    """
    reachable = W.sum(axis=0) > 0
    kept = np.where(reachable, m_T, 0.0)
    kept *= m_T.sum() / kept.sum()
    return temperature**2 * generalised_kl(kept[reachable], (m_S @ W)[reachable])
