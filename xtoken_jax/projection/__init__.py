"""W: from the student's vocabulary to the teacher's, built once from the tokenizers."""

from xtoken_jax.projection.build import LongPieces, Projection, build_projection
from xtoken_jax.projection.record import projection_record
from xtoken_jax.projection.retokenise import Pieces, retokenise
from xtoken_jax.projection.storage import load_projection, save_projection

__all__ = [
    "LongPieces",
    "Pieces",
    "Projection",
    "build_projection",
    "load_projection",
    "projection_record",
    "retokenise",
    "save_projection",
]
