"""From texts to aligned, packed batches in a reproducible order."""

from xtoken_jax.data.batches import Batch, TeacherBatch, batch_dataset, padded_rows, row_batches
from xtoken_jax.data.examples import Example, Lengths, TeacherTokens, make_examples
from xtoken_jax.data.rows import Rows, Utilisation, pack, utilisation
from xtoken_jax.data.sources import Document, gsm_symbolic, jsonl_files, python_docs, text_files

__all__ = [
    "Batch",
    "Document",
    "Example",
    "Lengths",
    "Rows",
    "TeacherBatch",
    "TeacherTokens",
    "Utilisation",
    "batch_dataset",
    "gsm_symbolic",
    "jsonl_files",
    "make_examples",
    "pack",
    "padded_rows",
    "python_docs",
    "row_batches",
    "text_files",
    "utilisation",
]
