"""The losses that need no W, in float64 NumPy, one chunk at a time, from their equations."""

import numpy as np


def sorted_l1(p, q, shorter, top_k=None):
    """L1 between two lists in descending order."""
    p, q = (sorted(map(float, side), reverse=True)[:top_k] for side in (p, q))
    if shorter == "pad":
        most = max(len(p), len(q))
        p, q = (side + [0.0] * (most - len(side)) for side in (p, q))
    return sum(abs(a - b) for a, b in zip(p, q, strict=False))


def hybrid_kl(m_S, m_T, c_S, c_T, pairs, *, top_k=None, reverse=False):
    """GOLD or H-KL of two measures over their tokenizers' tokens, with totals `c_S` and `c_T`."""
    total = c_S - c_T
    if reverse:
        total = -total
    for s, t in pairs:
        target, other = (m_S[s], m_T[t]) if reverse else (m_T[t], m_S[s])
        if target > 0:
            total += target * np.log(target / other)
    in_pairs = [{pair[side] for pair in pairs} for side in (0, 1)]
    rests = [
        [value for id, value in enumerate(measure) if id not in ids]
        for measure, ids in zip((m_S, m_T), in_pairs, strict=True)
    ]
    return total + sorted_l1(*rests, "truncate", top_k)


def kl(q, p):
    return sum(b * np.log(b / a) for a, b in zip(p, q, strict=True) if b > 0)
