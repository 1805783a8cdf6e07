"""Chain KL in float64, by enumeration of token sequences."""

import itertools

import numpy as np

END = -1  # the token ends, whatever comes after it
FLOOR = 1e-30


def toy_pieces(student, teacher):
    """Greedy longest-match spelling of each student string by teacher strings; "" has no pieces."""
    rows = []
    for text in student:
        row = []
        while text:
            best = max((t for t in teacher if text.startswith(t)), key=len)
            row.append(teacher.index(best))
            text = text[len(best) :]
        rows.append(tuple(row))
    return rows


def next_piece(p, rows, prefix):
    """What follows `prefix` inside the current token: probability of each piece, and of `END`.

    Runs through all sequences of two tokens, each drawn from `p`; the second one has no part in
    what the first one's pieces are, and adds up to 1.
    """
    depth = len(prefix)
    joint = {}
    for (first, p_first), (_, p_second) in itertools.product(enumerate(p), enumerate(p)):
        pieces = rows[first]
        if pieces[:depth] == prefix:
            follows = pieces[depth] if len(pieces) > depth else END
            joint[follows] = joint.get(follows, 0.0) + p_first * p_second
    total = sum(joint.values())
    return {follows: mass / total for follows, mass in joint.items()}


def chain_kl(p, q, rows, prefix, *, reverse=False):
    """One term: KL from `q` to the distribution that `p` induces after `prefix`."""
    if not prefix:
        return _first_kl(p, q, rows, reverse=reverse)
    induced = next_piece(p, rows, prefix)
    ends = induced.pop(END, 0.0)
    compared = [(q[piece], mass) for piece, mass in induced.items()]
    rest = 1.0 - sum(q_t for q_t, _ in compared)
    if prefix not in rows and not reverse:
        # No token ends here: the generalised KL over what follows, whose masses are 1 - rest and 1.
        return sum(_term(q_t, p_t) for q_t, p_t in compared) - (1.0 - rest) + 1.0
    compared.append((rest, max(ends, FLOOR)))
    return sum(_term(p_t, q_t) if reverse else _term(q_t, p_t) for q_t, p_t in compared)


def _first_kl(p, q, rows, *, reverse):
    induced = next_piece(p, rows, ())
    carried = 1.0 - induced.pop(END, 0.0)
    total = sum(q[piece] for piece in induced)
    compared = [(q[piece] / total, mass) for piece, mass in induced.items()]
    if reverse:
        return sum(_term(mass, q_t) for q_t, mass in compared) - carried + 1.0
    return sum(_term(q_t, mass) for q_t, mass in compared) - 1.0 + carried


def _term(one, other):
    return one * np.log(one / max(other, FLOOR)) if one > 0 else 0.0


def prefixes(rows):
    """All prefixes that some token continues, shortest first."""
    found = {row[:depth] for row in rows for depth in range(len(row))}
    return sorted(found, key=lambda prefix: (len(prefix), prefix))
