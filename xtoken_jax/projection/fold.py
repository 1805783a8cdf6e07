"""Where the mass of teacher tokens that W cannot reach may go."""

import numpy as np

from xtoken_jax.projection.matrix import Projection
from xtoken_jax.text import ByteTokenizer


def fold_targets(
    projection: Projection, student: ByteTokenizer, teacher: ByteTokenizer
) -> np.ndarray:
    """For each teacher token the reachable one that its mass is folded to, so that none is lost.

    A token that W reaches stays. Of another the student tokenises the bytes, and the largest
    entry of the first piece's row of W gets the mass: a coarser teacher token still teaches how
    its text begins.

    Returns:
        int32 `[U]`; -1 for control tokens that W cannot reach and for what the student cannot
        spell.
    """
    targets_U = np.where(projection.reachable_U, np.arange(projection.num_teacher_tokens), -1)
    unreachable = [id for id in np.flatnonzero(targets_U < 0).tolist() if teacher.token_bytes[id]]
    spelled = student.pieces([teacher.token_bytes[id] for id in unreachable])
    largest_V = np.take_along_axis(
        projection.ids_VK, projection.weights_VK.argmax(axis=1)[:, None], axis=1
    )[:, 0]
    for id, pieces in zip(unreachable, spelled, strict=True):
        if pieces:
            targets_U[id] = largest_V[pieces[0]]
    return targets_U.astype(np.int32)
