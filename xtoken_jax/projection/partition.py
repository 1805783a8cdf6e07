"""The common set of GOLD and H-KL: student and teacher tokens paired one to one."""

from dataclasses import dataclass

import numpy as np

from xtoken_jax.projection.matrix import Projection
from xtoken_jax.projection.pairing import first_claims


@dataclass(frozen=True)
class CommonSet:
    """Pairs of one student and one teacher token, no token in two, sorted by student id.

    Attributes:
        student_ids_N: int32.
        teacher_ids_N: int32, the other halves.
        is_exact_N: True for exact pairs, False for those that only W suggests.
    """

    student_ids_N: np.ndarray
    teacher_ids_N: np.ndarray
    is_exact_N: np.ndarray

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.student_ids_N)


def exact_pairs(projection: Projection) -> CommonSet:
    """GOLD's common set: equal tokens, and control tokens of the same role.

    Raises:
        ValueError: the projection does not say which rows are exact.
    """
    if projection.exact_pair_V is None:
        raise ValueError("`projection` must say which rows are exact, got `exact_pair_V` None")
    student_ids_N = np.flatnonzero(projection.exact_pair_V).astype(np.int32)
    teacher_ids_N = projection.ids_VK[student_ids_N, 0]
    return CommonSet(student_ids_N, teacher_ids_N, np.ones(len(student_ids_N), bool))


def hybrid_pairs(projection: Projection, *, threshold: float = 0.6) -> CommonSet:
    r"""H-KL's common set: the exact pairs, and the strong entries of W.

    .. math:: \{(s, \arg\max_t W[s, t]) : \max_t W[s, t] \ge \text{threshold}\}

    Exact pairs keep what they have; of several other student tokens that claim one teacher token
    the larger weight wins, then the lower student id. Of equal weights in a row the first counts.

    Args:
        projection: W.
        threshold: Smallest weight of a pair, in `[0, 1]`; at 0 every row that is not empty claims.

    Raises:
        ValueError: `threshold` is out of range, or the projection does not say which rows are
            exact.
    Source: X-Token (arXiv 2605.21699), H-KL; the threshold as in NeMo-RL.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"`threshold` must be in [0, 1], got {threshold}")
    exact = exact_pairs(projection)
    best_V = projection.weights_VK.argmax(axis=1)[:, None]
    weights_V = np.take_along_axis(projection.weights_VK, best_V, axis=1)[:, 0]
    teacher_ids_V = np.take_along_axis(projection.ids_VK, best_V, axis=1)[:, 0]
    is_free_U = np.ones(projection.num_teacher_tokens, bool)
    is_free_U[exact.teacher_ids_N] = False
    claims_V = (teacher_ids_V >= 0) & (weights_V >= threshold) & is_free_U[teacher_ids_V]
    claims_V[exact.student_ids_N] = False
    student_ids_N = np.flatnonzero(claims_V).astype(np.int32)
    wins_N = first_claims(teacher_ids_V[student_ids_N], -weights_V[student_ids_N])
    return _union(exact, student_ids_N[wins_N], teacher_ids_V[student_ids_N[wins_N]])


def _union(exact: CommonSet, student_ids_N: np.ndarray, teacher_ids_N: np.ndarray) -> CommonSet:
    student_ids_N = np.concatenate([exact.student_ids_N, student_ids_N])
    teacher_ids_N = np.concatenate([exact.teacher_ids_N, teacher_ids_N])
    is_exact_N = np.arange(len(student_ids_N)) < len(exact)
    order_N = np.argsort(student_ids_N)
    return CommonSet(student_ids_N[order_N], teacher_ids_N[order_N], is_exact_N[order_N])
