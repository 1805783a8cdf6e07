"""W in two passes: equal tokens, then re-tokenisation with geometrically falling weights."""

import dataclasses

from xtoken_jax.projection.matrix import Projection
from xtoken_jax.projection.options import BuildOptions, Canonicalization, LongPieces
from xtoken_jax.projection.pairing import exact_pair_rows
from xtoken_jax.projection.retokenise import retokenise
from xtoken_jax.projection.reverse import add_reverse_pass
from xtoken_jax.projection.weights import rows_of_pieces
from xtoken_jax.text import ByteTokenizer


def build_projection(
    student: ByteTokenizer,
    teacher: ByteTokenizer,
    *,
    beta: float = 0.9,
    gamma: float = 0.1,
    max_pieces: int = 4,
    long_pieces: LongPieces = "truncate",
    canonicalization: Canonicalization = "exact",
    reverse: bool = False,
    special_similarity: bool = False,
) -> Projection:
    r"""Build W from the two tokenizers alone; equal input gives equal output.

    .. math:: W[s, \tau_i] \propto \beta \gamma^i, \quad \sum_t W[s, t] = 1

    where :math:`\tau` is the student token re-tokenised by the teacher, a single piece for an
    exact match.

    Args:
        student: Tokenizer of the rows.
        teacher: Tokenizer of the columns.
        beta: Weight of the first piece, before the row is normalised (which cancels it).
        gamma: Ratio between a piece's weight and its predecessor's, in `[0, 1]`; 0 keeps the
            first piece alone.
        max_pieces: Pieces kept, K.
        long_pieces: What to do with a longer row: keep its first `max_pieces`, or drop the row.
        canonicalization: Which tokens match exactly: `"exact"`, those with equal bytes;
            `"paper"`, also those that `canonical_bytes` makes equal, for comparison only.
        reverse: Then spell by the student each teacher token that no student token matches, and
            add its weights to rows without an exact match; see `add_reverse_pass`.
        special_similarity: Pair control tokens that have no counterpart by role by their names;
            see `similar_names`.

    Raises:
        ValueError: an option is out of range.
    Source: X-Token (arXiv 2605.21699), section on the projection matrix.
    """
    options = BuildOptions(
        beta, gamma, max_pieces, long_pieces, canonicalization, reverse, special_similarity
    )
    pieces = retokenise(
        student, teacher, canonicalization=canonicalization, special_similarity=special_similarity
    )
    ids_VK, weights_VK = rows_of_pieces(pieces, options)
    if reverse:
        add_reverse_pass(ids_VK, weights_VK, student, teacher, pieces, options)
    return Projection(
        ids_VK,
        weights_VK,
        num_student_tokens=student.num_tokens,
        num_teacher_tokens=teacher.num_tokens,
        student_fingerprint=student.fingerprint,
        teacher_fingerprint=teacher.fingerprint,
        options=dataclasses.asdict(options),
        exact_pair_V=exact_pair_rows(student, teacher, pieces),
    )
