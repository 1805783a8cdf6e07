"""Runs, alignments and projections: as tables, curves and pages."""

from xtoken_jax.report.curves import plot_curves, read_evaluation, read_metrics
from xtoken_jax.report.tables import alignment_table, evaluation_table, projection_table

__all__ = [
    "alignment_table",
    "evaluation_table",
    "plot_curves",
    "projection_table",
    "read_evaluation",
    "read_metrics",
]
