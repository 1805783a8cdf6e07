"""W: from the student's vocabulary to the teacher's, built once from the tokenizers."""

from xtoken_jax.projection.audit import audit
from xtoken_jax.projection.build import build_projection
from xtoken_jax.projection.fold import fold_targets
from xtoken_jax.projection.matrix import Projection
from xtoken_jax.projection.options import Canonicalization, LongPieces
from xtoken_jax.projection.partition import CommonSet, exact_pairs, hybrid_pairs
from xtoken_jax.projection.piece_trie import (
    STUDENT_SPACE,
    TEACHER_SPACE,
    ChainTerms,
    PieceTrie,
    build_piece_trie,
    chain_terms,
)
from xtoken_jax.projection.record import projection_record
from xtoken_jax.projection.retokenise import Pieces, retokenise
from xtoken_jax.projection.storage import load_projection, save_projection

__all__ = [
    "STUDENT_SPACE",
    "TEACHER_SPACE",
    "Canonicalization",
    "ChainTerms",
    "CommonSet",
    "LongPieces",
    "PieceTrie",
    "Pieces",
    "Projection",
    "audit",
    "build_piece_trie",
    "build_projection",
    "chain_terms",
    "exact_pairs",
    "fold_targets",
    "hybrid_pairs",
    "load_projection",
    "projection_record",
    "retokenise",
    "save_projection",
]
