"""`xtoken audit`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xtoken_jax.cli.output import OUT, print_json
from xtoken_jax.cli.texts import read_utf8
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.files import replaced_file
from xtoken_jax.text import ByteTokenizer

if TYPE_CHECKING:
    from xtoken_jax.projection import Projection

_DEFAULT_ROWS = (
    b"201",
    b"2024",
    b" 2024",
    b"202",
    b"Hundreds",
    b" learning",
    b" therefore",
    b"));",
)


@dataclass(frozen=True)
class Audit:
    """Say what two tokenizers have in common, and which loss suits them."""

    student: str
    """Tokenizer: local directory, `asset:NAME` or hub id."""
    teacher: str
    """Likewise."""
    projection: Path | None = None
    """W of the two, from `xtoken project`; none builds it with the default options."""
    corpus: Path | None = None
    """A UTF-8 file by whose token frequencies the categories are weighted as well."""
    threshold: float = 0.6
    """Smallest weight with which H-KL takes a pair from W."""
    rows: tuple[str, ...] = ()
    """Student tokens whose rows the page shows; default some numerals and words it has."""
    json: bool = False
    """Print JSON."""
    html: Path | None = None
    """Write a page that opens without a network, with rows of W as a heat map."""

    def __call__(self) -> None:
        """Audit, write the page, print."""
        from xtoken_jax.projection import audit

        if self.rows and self.html is None:
            raise UsageError("`--rows` chooses what the page shows; give `--html` too")
        text = None if self.corpus is None else read_utf8(self.corpus, option="--corpus")
        student, teacher = ByteTokenizer.load(self.student), ByteTokenizer.load(self.teacher)
        projection = _projection(self.projection, student, teacher)
        counts_V = None if text is None else _counts(text, student, self.corpus)
        try:
            record = audit(
                student, teacher, projection, threshold=self.threshold, counts_V=counts_V
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
        if self.html is not None:
            _write_page(self.html, record, _rows(self.rows, projection, student, teacher))
        if self.json:
            print_json(record)
        else:
            from xtoken_jax.report import audit_table

            OUT.print(audit_table(record))


def _counts(text: str, student: ByteTokenizer, path: Path | None) -> np.ndarray:
    ids_N = student.encode([text]).ids_N
    if not len(ids_N):
        raise XTokenError(f"{path} must have text to weigh by, got no tokens")
    return np.bincount(ids_N, minlength=student.num_tokens)


def _projection(path: Path | None, student: ByteTokenizer, teacher: ByteTokenizer) -> "Projection":
    from xtoken_jax.projection import build_projection, load_projection

    if path is None:
        return build_projection(student, teacher)
    return load_projection(path, student=student, teacher=teacher)


def _rows(
    rows: tuple[str, ...], projection: "Projection", student: ByteTokenizer, teacher: ByteTokenizer
) -> list[dict[str, Any]]:
    from xtoken_jax.projection import projection_record

    tokens = [os.fsencode(row) for row in rows]
    tokens = tokens or [row for row in _DEFAULT_ROWS if row in student.id_of_bytes]
    return projection_record(projection, student, teacher, tokens=tokens)["examples"]


def _write_page(path: Path, record: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    from xtoken_jax.report import audit_page

    page = audit_page(record, rows, title=f"{record['student']} from {record['teacher']}")
    with replaced_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
