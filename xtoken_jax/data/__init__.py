"""From texts to aligned, packed batches in a reproducible order."""

from xtoken_jax.data.batches import (
    Batch,
    RowSource,
    TeacherBatch,
    batch_dataset,
    padded_rows,
    row_batches,
)
from xtoken_jax.data.chain import PieceTries, build_piece_tries
from xtoken_jax.data.chat import ChatOptions
from xtoken_jax.data.counts import RowCounts, TeacherCounts, count_rows, source_counts
from xtoken_jax.data.example import Example, Lengths, TeacherTokens
from xtoken_jax.data.examples import make_examples, try_examples
from xtoken_jax.data.files import matches
from xtoken_jax.data.prepare import Plan, document_blocks, pack_block, prepare
from xtoken_jax.data.prepared import PreparedRows, check_plan
from xtoken_jax.data.problems import OnError, Problem, Tally
from xtoken_jax.data.records import Chat, Document, Format, Item, documents_of
from xtoken_jax.data.rows import Rows, Utilisation, joined, pack, utilisation
from xtoken_jax.data.shown import shown_documents
from xtoken_jax.data.sources import (
    Part,
    SourceKind,
    gsm_symbolic,
    hf_dataset,
    jsonl_files,
    parquet_files,
    part_of,
    python_docs,
    read_source,
    text_files,
)
from xtoken_jax.data.templates import TODAY, ChatTemplate

__all__ = [
    "TODAY",
    "Batch",
    "Chat",
    "ChatOptions",
    "ChatTemplate",
    "Document",
    "Example",
    "Format",
    "Item",
    "Lengths",
    "OnError",
    "Part",
    "PieceTries",
    "Plan",
    "PreparedRows",
    "Problem",
    "RowCounts",
    "RowSource",
    "Rows",
    "SourceKind",
    "Tally",
    "TeacherBatch",
    "TeacherCounts",
    "TeacherTokens",
    "Utilisation",
    "batch_dataset",
    "build_piece_tries",
    "check_plan",
    "count_rows",
    "document_blocks",
    "documents_of",
    "gsm_symbolic",
    "hf_dataset",
    "joined",
    "jsonl_files",
    "make_examples",
    "matches",
    "pack",
    "pack_block",
    "padded_rows",
    "parquet_files",
    "part_of",
    "prepare",
    "python_docs",
    "read_source",
    "row_batches",
    "shown_documents",
    "source_counts",
    "text_files",
    "try_examples",
    "utilisation",
]
