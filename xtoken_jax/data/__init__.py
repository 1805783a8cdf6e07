"""From texts to aligned, packed batches in a reproducible order."""

from xtoken_jax.data.batches import Batch, batch_dataset, padded_rows
from xtoken_jax.data.examples import Example, make_examples
from xtoken_jax.data.sources import Document, gsm_symbolic, jsonl_files, python_docs, text_files

__all__ = [
    "Batch",
    "Document",
    "Example",
    "batch_dataset",
    "gsm_symbolic",
    "jsonl_files",
    "make_examples",
    "padded_rows",
    "python_docs",
    "text_files",
]
