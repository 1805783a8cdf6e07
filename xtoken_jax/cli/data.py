"""`xtoken data CONFIG [--batches N] [--json] [--html FILE] [--FIELD VALUE ...]`."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xtoken_jax.cli.experiment import read_experiment, take_number, take_text
from xtoken_jax.cli.output import OUT, print_json
from xtoken_jax.files import replaced_file

if TYPE_CHECKING:
    from xtoken_jax.config import ExperimentConfig, SourceConfig
    from xtoken_jax.train.setup import Tokenizers

_USAGE = (
    "[--batches N] [--json] [--html FILE] ",
    "--batches: of the run's first batches, how many to show; default: 1; 0 for numbers alone",
    "--json: print JSON",
    "--html: write a page that opens offline",
)


def run_data(arguments: list[str]) -> int:
    """Show what a config trains on: the run's first batches, and numbers of all data."""
    arguments = list(arguments)
    num_batches = take_number(arguments, "--batches", least=0)
    html = take_text(arguments, "--html")
    as_json = "--json" in arguments
    rest = [argument for argument in arguments if argument != "--json"]
    config = read_experiment("data", rest, usage=_USAGE)
    from xtoken_jax.report import data_page, data_summary, document_tables
    from xtoken_jax.train import setup

    tokenizers = setup.load_tokenizers(config)
    documents, summary = _read(config, tokenizers, 1 if num_batches is None else num_batches)
    if html is not None:
        title = f"data of {config.run_dir}"
        with replaced_file(Path(html)) as temporary:
            temporary.write_text(data_page(documents, summary, title=title), encoding="utf-8")
    if as_json:
        print_json({**summary, "documents": documents})
        return 0
    if html is None:
        for document in documents:
            for table in document_tables(document):
                OUT.print(table)
    OUT.print(data_summary(summary))
    for kind, count in summary["dropped"].items():
        first = summary["first_dropped"][kind]
        OUT.print(f"left out: {count} {kind}, the first: {first}", soft_wrap=True)
    if html is not None:
        OUT.print(f"page: {html}", soft_wrap=True)
    return 0


def _read(
    config: "ExperimentConfig", tokenizers: "Tokenizers", num_batches: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The documents of the first batches, and the summary of all that is trained on."""
    from xtoken_jax.data import RowCounts, row_batches, shown_documents, source_counts
    from xtoken_jax.train import setup
    from xtoken_jax.train.data import mixture_weights

    rows, tally = setup.load_rows(config, tokenizers)
    batches = row_batches(
        rows,
        batch_size=config.data.batch_size,
        seed=config.seed,
        weights=mixture_weights(config.data),
    )
    documents = [
        {"batch": number, **document}
        for number, batch in enumerate(islice(batches, num_batches))
        for document in shown_documents(batch, tokenizers.student, tokenizers.teachers)
    ]
    counts = source_counts(rows)
    lengths = setup.row_lengths(config)

    def numbers(of: RowCounts) -> dict[str, Any]:
        return {"counts": of.to_dict(), "shares": of.shares(lengths)}

    sources = [
        {"source": _words(source), **numbers(each)}
        for source, each in zip(config.data.train, counts, strict=True)
    ]
    summary = {
        "lengths": {"student": lengths.student, "teachers": dict(lengths.teachers)},
        "batch_size": config.data.batch_size,
        "sources": sources,
        "total": numbers(sum(counts, RowCounts())),
        "dropped": dict(tally.dropped),
        "first_dropped": tally.examples,
    }
    return documents, summary


def _words(source: "SourceConfig") -> str:
    return source.kind if source.path is None else f"{source.kind} {source.path}"
