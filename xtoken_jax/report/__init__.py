"""Runs, alignments, projections and audits: as tables, curves and pages."""

from xtoken_jax.report.alignment_page import alignment_page
from xtoken_jax.report.audit_page import audit_page
from xtoken_jax.report.curves import plot_curves, read_evaluation, read_metrics
from xtoken_jax.report.data_page import data_page
from xtoken_jax.report.data_table import data_summary, document_tables
from xtoken_jax.report.run_page import run_page
from xtoken_jax.report.runs import read_runs
from xtoken_jax.report.tables import (
    alignment_table,
    audit_table,
    evaluation_table,
    projection_table,
)

__all__ = [
    "alignment_page",
    "alignment_table",
    "audit_page",
    "audit_table",
    "data_page",
    "data_summary",
    "document_tables",
    "evaluation_table",
    "plot_curves",
    "projection_table",
    "read_evaluation",
    "read_metrics",
    "read_runs",
    "run_page",
]
