"""One vocabulary sorted by how the other spells it: what chain KL marginalises over.

`M` counts nodes, `P` pieces of all tokens, end to end. Student and teacher mean the vocabulary that
is spelled and the one that spells; exchange the two tokenizers for the other way.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from xtoken_jax.align import scored
from xtoken_jax.projection.retokenise import Pieces

# How `ChainTerms.side_N` says in whose vocabulary two distributions are compared.
TEACHER_SPACE, STUDENT_SPACE = 0, 1


@dataclass(frozen=True)
class PieceTrie:
    """The prefixes of all piece sequences of a vocabulary, numbered breadth first; arrays int32.

    The student's tokens stand in the order of their piece sequences, a sequence before its
    continuations. So the tokens below a node are a range of places in that order, those that end
    at the node come first in the range, and its children have consecutive numbers.

    Attributes:
        order_V: Student token at each place. Those without pieces come first: they end at the root.
        offsets_V: `[V + 1]`; the token at place `r` owns `path_P[offsets_V[r]:offsets_V[r + 1]]`.
        path_P: Node that each piece leads to.
        parent_M: Node one piece shorter; -1 for the root, which is node 0.
        piece_M: Last piece, a teacher token; -1 for the root.
        depth_M: Number of pieces.
        start_M: First place below the node.
        ends_M: The tokens at places `start_M:ends_M` end exactly here.
        stop_M: One past the last place below the node.
        children_M: `[M + 1]`; the children of node `m` are `children_M[m]:children_M[m + 1]`.
        num_teacher_tokens: One past the teacher's largest id.
    """

    order_V: np.ndarray
    offsets_V: np.ndarray
    path_P: np.ndarray
    parent_M: np.ndarray
    piece_M: np.ndarray
    depth_M: np.ndarray
    start_M: np.ndarray
    ends_M: np.ndarray
    stop_M: np.ndarray
    children_M: np.ndarray
    num_teacher_tokens: int

    @property
    def num_student_tokens(self) -> int:
        """One past the student's largest id."""
        return len(self.order_V)

    @cached_property
    def is_inner_M(self) -> np.ndarray:
        """True where some token goes on."""
        return np.diff(self.children_M) > 0

    def child(self, node_N: np.ndarray, piece_N: np.ndarray) -> np.ndarray:
        """The node one piece further; -1 where no token goes on like that."""
        key_N = node_N * np.int64(self.num_teacher_tokens) + piece_N
        at_N = np.minimum(np.searchsorted(self._keys_M, key_N), len(self._keys_M) - 1)
        return np.where(self._keys_M[at_N] == key_N, at_N + 1, -1).astype(np.int32)

    @cached_property
    def _keys_M(self) -> np.ndarray:
        """Parent and piece of each node but the root in one number; ascending, as nodes are."""
        return self.parent_M[1:] * np.int64(self.num_teacher_tokens) + self.piece_M[1:]


def build_piece_trie(pieces: Pieces, *, num_teacher_tokens: int, max_length: int = 16) -> PieceTrie:
    """Sort a vocabulary by piece sequence and number its prefixes.

    Args:
        pieces: How the teacher spells each student token, from `retokenise`.
        num_teacher_tokens: One past the teacher's largest id.
        max_length: Pieces kept of a token. Nothing follows a prefix of this length.

    Raises:
        ValueError: `max_length` is not positive, a piece is out of range, or no token has one.
    """
    if max_length < 1:
        raise ValueError(f"`max_length` must be at least 1, got {max_length}")
    if not len(pieces.ids_N):
        raise ValueError("`pieces` must spell at least one token, got none")
    least, most = int(pieces.ids_N.min()), int(pieces.ids_N.max())
    if least < 0 or most >= num_teacher_tokens:
        raise ValueError(
            f"`pieces` must lie within the teacher's {num_teacher_tokens} tokens, "
            f"got ids from {least} to {most}"
        )
    order_V, length_V, piece_VL = _sorted_pieces(pieces, max_length)
    begins_LV = _begins(length_V, piece_VL)
    node_LV = np.cumsum(begins_LV).reshape(begins_LV.shape)  # breadth first; the root is 0
    depth_N, start_N = np.nonzero(begins_LV)
    shallower_N = np.where(depth_N > 0, node_LV[depth_N - 1, start_N], 0)
    parent_M = np.concatenate([[-1], shallower_N])
    num_nodes = len(parent_M)
    end_V = np.where(length_V > 0, node_LV[length_V - 1, np.arange(len(length_V))], 0)
    start_M = np.concatenate([[0], start_N])
    # A token lies below every node of its path; the root has all.
    is_piece_LV = np.arange(len(node_LV))[:, None] < length_V[None, :]
    below_M = np.bincount(node_LV[is_piece_LV], minlength=num_nodes)
    below_M[0] = len(length_V)
    arrays = {
        "order_V": order_V,
        "offsets_V": np.concatenate([[0], np.cumsum(length_V)]),
        "path_P": node_LV.T[is_piece_LV.T],
        "parent_M": parent_M,
        "piece_M": np.concatenate([[-1], piece_VL[start_N, depth_N]]),
        "depth_M": np.concatenate([[0], depth_N + 1]),
        "start_M": start_M,
        "ends_M": start_M + np.bincount(end_V, minlength=num_nodes),
        "stop_M": start_M + below_M,
        "children_M": 1 + np.searchsorted(parent_M[1:], np.arange(num_nodes + 1)),
    }
    return PieceTrie(
        **{name: array.astype(np.int32) for name, array in arrays.items()},
        num_teacher_tokens=num_teacher_tokens,
    )


def _sorted_pieces(pieces: Pieces, max_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens in the order of their pieces, how many each has, and `[V, L]` pieces, -1 for none."""
    length_V = np.minimum(pieces.lengths_V, max_length)
    rank_L = np.arange(int(length_V.max()))
    is_piece_VL = rank_L[None, :] < length_V[:, None]
    at_VL = np.where(is_piece_VL, pieces.offsets_V[:-1, None] + rank_L[None, :], 0)
    piece_VL = np.where(is_piece_VL, pieces.ids_N[at_VL], -1)
    order_V = np.lexsort(piece_VL.T[::-1])  # -1 sorts first; equal sequences by student id
    return order_V, length_V[order_V], piece_VL[order_V]


def _begins(length_V: np.ndarray, piece_VL: np.ndarray) -> np.ndarray:
    """`[L, V]`, True where a token is the first with its first `depth + 1` pieces."""
    differs_VL = np.ones(piece_VL.shape, bool)
    differs_VL[1:] = np.logical_or.accumulate(piece_VL[1:] != piece_VL[:-1], axis=1)
    return (differs_VL & (piece_VL >= 0)).T


@dataclass(frozen=True)
class ChainTerms:
    """What chain KL compares in one text: one entry a term, sorted by chunk; arrays int32.

    Attributes:
        student_position_N: Student position whose prediction is compared.
        teacher_position_N: Teacher position whose prediction is compared.
        node_N: What has been seen of the chunk's single token, in the trie of the side; 0 for
            nothing.
        side_N: `TEACHER_SPACE` where the student's distribution is carried to the teacher's pieces,
            `STUDENT_SPACE` the other way round.
        chunk_N: Row of the chunk.
    """

    student_position_N: np.ndarray
    teacher_position_N: np.ndarray
    node_N: np.ndarray
    side_N: np.ndarray
    chunk_N: np.ndarray

    def __len__(self) -> int:
        """Number of terms."""
        return len(self.chunk_N)


def chain_terms(
    chunks_N4: np.ndarray,
    student_ids: np.ndarray,
    teacher_ids: np.ndarray,
    student_by_teacher: PieceTrie,
    teacher_by_student: PieceTrie,
) -> ChainTerms:
    """The terms of chain KL in the scored chunks of one text.

    One student token and n teacher tokens give up to n terms: the student's distribution over the
    chunk's token, given the first i teacher tokens, against the teacher's at its position i. One
    teacher token and n student tokens give the same with the roles exchanged. Any other chunk has
    the first term only, in the teacher's vocabulary.

    A text may be cut otherwise than a token alone is spelled. Where the tokens in the text leave
    the trie, or reach a node that nothing follows, the chunk's terms end.

    Args:
        chunks_N4: The text's rows of an alignment.
        student_ids: All of the text's student tokens.
        teacher_ids: All of its teacher tokens.
        student_by_teacher: Student tokens spelled by the teacher.
        teacher_by_student: Teacher tokens spelled by the student.
    """
    chunk_N = np.flatnonzero(scored(chunks_N4))
    student_first_N, student_end_N, teacher_first_N, teacher_end_N = chunks_N4[chunk_N].T
    num_student_N = student_end_N - student_first_N
    num_teacher_N = teacher_end_N - teacher_first_N
    in_student_space_N = (num_teacher_N == 1) & (num_student_N > 1)
    in_teacher_space_N = num_student_N == 1
    first_3N = np.zeros((3, len(chunk_N)), np.int64)
    first_3N[0] = np.arange(len(chunk_N))
    teacher_3N = _walk(
        student_by_teacher, teacher_ids, teacher_first_N, num_teacher_N * in_teacher_space_N
    )
    student_3N = _walk(
        teacher_by_student, student_ids, student_first_N, num_student_N * in_student_space_N
    )
    terms_3N = np.concatenate([first_3N, teacher_3N, student_3N], axis=1)
    at_N, step_N, node_N = terms_3N[:, np.argsort(terms_3N[0], kind="stable")]
    side_N = np.where(in_student_space_N, STUDENT_SPACE, TEACHER_SPACE)[at_N]
    arrays = (
        student_first_N[at_N] - 1 + step_N * (side_N == STUDENT_SPACE),
        teacher_first_N[at_N] - 1 + step_N * (side_N == TEACHER_SPACE),
        node_N,
        side_N,
        chunk_N[at_N],
    )
    return ChainTerms(*(array.astype(np.int32) for array in arrays))


def _walk(
    trie: PieceTrie, ids_N: np.ndarray, first_N: np.ndarray, length_N: np.ndarray
) -> np.ndarray:
    """Follow the tokens of chunks down a trie.

    Returns:
        `[3, N]`: index of the chunk, number of its tokens seen, inner node that they lead to; for
        every number from 1 that leaves a token of the chunk to come.
    """
    index_N = np.arange(len(first_N))
    node_N = np.zeros(len(first_N), np.int32)
    found = [np.zeros((3, 0), np.int64)]
    for step in range(1, int(length_N.max(initial=1))):
        goes_on_N = length_N[index_N] > step
        index_N, node_N = index_N[goes_on_N], node_N[goes_on_N]
        node_N = trie.child(node_N, ids_N[first_N[index_N] + step - 1])
        is_inner_N = (node_N >= 0) & trie.is_inner_M[node_N]
        index_N, node_N = index_N[is_inner_N], node_N[is_inner_N]
        found.append(np.stack([index_N, np.full_like(index_N, step), node_N]))
    return np.concatenate(found, axis=1)
