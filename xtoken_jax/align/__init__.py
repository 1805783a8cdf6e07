"""Spans: which student tokens and which teacher tokens spell the same bytes."""

from xtoken_jax.align.batch import align
from xtoken_jax.align.record import alignment_record
from xtoken_jax.align.spans import Alignment, scored, validate

__all__ = ["Alignment", "align", "alignment_record", "scored", "validate"]
