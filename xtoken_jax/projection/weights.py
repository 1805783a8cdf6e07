"""From pieces to rows of W."""

import numpy as np

from xtoken_jax.projection.options import BuildOptions
from xtoken_jax.projection.retokenise import Pieces


def rows_of_pieces(pieces: Pieces, options: BuildOptions) -> tuple[np.ndarray, np.ndarray]:
    """One row a token: int32 ids `[V, K]`, -1 at the pads, and float32 weights that sum to 1."""
    kept_V = _kept(pieces.lengths_V, options)
    rank_VK = np.broadcast_to(np.arange(options.max_pieces), (len(kept_V), options.max_pieces))
    filled_VK = rank_VK < kept_V[:, None]
    at_VK = np.where(filled_VK, pieces.offsets_V[:-1, None] + rank_VK, 0)
    ids_VK = np.where(filled_VK, pieces.ids_N[at_VK], -1).astype(np.int32)
    weights_VK = np.where(filled_VK, options.beta * float(options.gamma) ** rank_VK, 0.0)
    _merge_repeats(ids_VK, weights_VK)
    return ids_VK, normalised(ids_VK, weights_VK)


def normalised(ids_VK: np.ndarray, weights_VK: np.ndarray) -> np.ndarray:
    """Weights in float32 that sum to 1 by row; entries that it leaves nothing become pads."""
    totals_V1 = weights_VK.sum(axis=1, keepdims=True)
    weights_VK = np.divide(weights_VK, totals_V1, out=weights_VK, where=totals_V1 > 0)
    weights_VK = weights_VK.astype(np.float32)
    ids_VK[weights_VK == 0] = -1
    return weights_VK


def _kept(lengths_V: np.ndarray, options: BuildOptions) -> np.ndarray:
    if options.long_pieces == "drop":
        return np.where(lengths_V > options.max_pieces, 0, lengths_V)
    return np.minimum(lengths_V, options.max_pieces)


def _merge_repeats(ids_VK: np.ndarray, weights_VK: np.ndarray) -> None:
    """Add a repeated piece's weight to its first occurrence, then close the hole, in place."""
    for later in range(1, ids_VK.shape[1]):
        for earlier in range(later):
            same_V = (ids_VK[:, later] == ids_VK[:, earlier]) & (ids_VK[:, later] >= 0)
            weights_VK[same_V, earlier] += weights_VK[same_V, later]
            weights_VK[same_V, later] = 0.0
            ids_VK[same_V, later] = -1
    order_VK = np.argsort(ids_VK < 0, axis=1, kind="stable")
    ids_VK[:] = np.take_along_axis(ids_VK, order_VK, axis=1)
    weights_VK[:] = np.take_along_axis(weights_VK, order_VK, axis=1)
