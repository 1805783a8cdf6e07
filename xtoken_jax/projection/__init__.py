"""W: from the student's vocabulary to the teacher's, built once from the tokenizers."""

from xtoken_jax.projection.audit import audit
from xtoken_jax.projection.build import build_projection
from xtoken_jax.projection.matrix import Projection
from xtoken_jax.projection.options import Canonicalization, LongPieces
from xtoken_jax.projection.partition import CommonSet, exact_pairs, hybrid_pairs
from xtoken_jax.projection.record import projection_record
from xtoken_jax.projection.retokenise import Pieces, retokenise
from xtoken_jax.projection.storage import load_projection, save_projection

__all__ = [
    "Canonicalization",
    "CommonSet",
    "LongPieces",
    "Pieces",
    "Projection",
    "audit",
    "build_projection",
    "exact_pairs",
    "hybrid_pairs",
    "load_projection",
    "projection_record",
    "retokenise",
    "save_projection",
]
