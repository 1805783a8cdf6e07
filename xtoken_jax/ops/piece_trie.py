"""A vocabulary sorted by piece sequence on the device: distributions over the next piece.

`M` counts nodes and `P` pieces as in `projection.piece_trie`; `J` is the most tokens below an inner
node other than the root, `K` the most children of one.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from xtoken_jax.ops.projection import DeviceProjection, to_device
from xtoken_jax.projection import Projection
from xtoken_jax.projection.piece_trie import PieceTrie

# Stands for the logarithm of 0, so that sums and gradients over impossible tokens stay finite.
_LEAST_LOG = -1e4

_ARRAYS = (
    "order_V",
    "offsets_V",
    "path_P",
    "piece_M",
    "depth_M",
    "start_M",
    "ends_M",
    "stop_M",
    "children_M",
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DevicePieceTrie:
    """A `PieceTrie` on the device. Its arrays are those of the same name there.

    Attributes:
        first: Each student token to its first piece: W at gamma 0, padded to both unembeddings.
        order_V: Student token at each place.
        offsets_V: Where the path of the token at each place begins.
        path_P: Node that each piece leads to.
        piece_M: Last piece of each node.
        depth_M: Number of pieces of each node.
        start_M: First place below each node.
        ends_M: The tokens at places `start_M:ends_M` end exactly at the node.
        stop_M: One past the last place below each node.
        children_M: The children of node `m` are `children_M[m]:children_M[m + 1]`.
        num_below: J.
        num_children: K.
    """

    first: DeviceProjection
    order_V: Int[Array, " V"]
    offsets_V: Int[Array, " V1"]
    path_P: Int[Array, " P"]
    piece_M: Int[Array, " M"]
    depth_M: Int[Array, " M"]
    start_M: Int[Array, " M"]
    ends_M: Int[Array, " M"]
    stop_M: Int[Array, " M"]
    children_M: Int[Array, " M1"]
    num_below: int = field(metadata={"static": True})
    num_children: int = field(metadata={"static": True})

    @property
    def num_student_tokens(self) -> int:
        """Rows of the student's unembedding past this are padding."""
        return self.first.num_student_tokens

    @property
    def num_teacher_tokens(self) -> int:
        """Rows of the teacher's unembedding past this are padding."""
        return self.first.num_teacher_tokens


def piece_trie_to_device(
    trie: PieceTrie,
    *,
    student_vocab_size: int | None = None,
    teacher_vocab_size: int | None = None,
) -> DevicePieceTrie:
    """Put a trie on the device.

    Args:
        trie: From `build_piece_trie`.
        student_vocab_size: Rows of the student's unembedding; the tokenizer's size by default.
        teacher_vocab_size: Likewise for the teacher's.

    Raises:
        ValueError: an unembedding has fewer rows than its tokenizer has tokens.
    """
    is_inner_M = trie.is_inner_M & (trie.depth_M > 0)
    return DevicePieceTrie(
        to_device(
            _first_pieces(trie),
            student_vocab_size=student_vocab_size,
            teacher_vocab_size=teacher_vocab_size,
        ),
        **{name: jnp.asarray(getattr(trie, name)) for name in _ARRAYS},
        # At least 1: gathers from arrays of no rows would be a case of their own.
        num_below=int((trie.stop_M - trie.start_M)[is_inner_M].max(initial=1)),
        num_children=int(np.diff(trie.children_M)[is_inner_M].max(initial=1)),
    )


def _first_pieces(trie: PieceTrie) -> Projection:
    spelled_N = np.arange(trie.ends_M[0], len(trie.order_V))
    ids_V1 = np.full((len(trie.order_V), 1), -1, np.int32)
    ids_V1[trie.order_V[spelled_N], 0] = trie.piece_M[trie.path_P[trie.offsets_V[spelled_N]]]
    weights_V1 = (ids_V1 >= 0).astype(np.float32)
    return Projection(ids_V1, weights_V1, len(ids_V1), trie.num_teacher_tokens, "", "", {})


class NextPieces(NamedTuple):
    """Distributions over what follows a prefix, one a column; a column sums to 1.

    Attributes:
        probs_KN: Of each child of the column's node.
        ends_N: Of the tokens that end exactly there.
        ids_KN: The children's pieces, -1 past the last child, where the probability is 0.
    """

    probs_KN: Float[Array, "K N"]
    ends_N: Float[Array, " N"]
    ids_KN: Int[Array, "K N"]


def next_piece_measures(
    log_p_VN: Float[Array, "V N"], trie: DevicePieceTrie, node_N: Int[Array, " N"]
) -> NextPieces:
    r"""The distribution over the next piece that a distribution over tokens induces.

    .. math::
        q(t \mid \pi) = \frac{\sum_{s: s \text{ begins } \pi t} p(s)}
        {\sum_{s: s \text{ begins } \pi} p(s)}

    Only the tokens below the column's node are read, and they are normalised among themselves
    before anything is added, so that a prefix of tiny or underflowing probability loses nothing.
    Each child's tokens are then added up on their own: differences of a running sum would leave
    a child of probability 1e-6 only a digit or two.

    Args:
        log_p_VN: Log-probabilities over the student's tokens. A prefix whose tokens are all
            impossible spreads evenly over them, with gradient 0.
        trie: Student tokens by teacher pieces.
        node_N: Inner nodes other than the root; others give finite numbers that mean nothing.

    Returns:
        Probabilities given the prefix, float32.
    """
    num_below, num_children = trie.num_below, trie.num_children
    node_N = jnp.clip(node_N, 0, trie.piece_M.shape[0] - 1)
    place_JN = trie.start_M[node_N][None, :] + jnp.arange(num_below)[:, None]
    is_below_JN = place_JN < trie.stop_M[node_N][None, :]
    place_JN = jnp.minimum(place_JN, trie.order_V.shape[0] - 1)
    log_p_JN = jnp.take_along_axis(log_p_VN, trie.order_V[place_JN], axis=0)
    log_p_JN = jnp.maximum(log_p_JN, _LEAST_LOG)
    probs_JN = jax.nn.softmax(jnp.where(is_below_JN, log_p_JN, -jnp.inf), axis=0)

    first_child_1N = trie.children_M[node_N][None, :]
    at_JN = trie.offsets_V[place_JN] + trie.depth_M[node_N][None, :]
    child_JN = trie.path_P[jnp.minimum(at_JN, trie.path_P.shape[0] - 1)] - first_child_1N
    # Row K collects what ends here, and the zeros of places that are not below the node.
    goes_on_JN = is_below_JN & (place_JN >= trie.ends_M[node_N][None, :])
    row_JN = jnp.where(goes_on_JN, child_JN, num_children)
    column_1N = jnp.arange(node_N.shape[0])[None, :]
    sums_KN = jnp.zeros((num_children + 1, node_N.shape[0])).at[row_JN, column_1N].add(probs_JN)

    child_KN = first_child_1N + jnp.arange(num_children)[:, None]
    is_child_KN = child_KN < trie.children_M[node_N + 1][None, :]
    piece_KN = trie.piece_M[jnp.minimum(child_KN, trie.piece_M.shape[0] - 1)]
    ids_KN = jnp.where(is_child_KN, piece_KN, -1)
    return NextPieces(sums_KN[:-1], sums_KN[-1], ids_KN)
