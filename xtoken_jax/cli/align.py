"""`xtoken align`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xtoken_jax.cli.output import OUT, print_json
from xtoken_jax.cli.texts import checked_utf8, read_utf8
from xtoken_jax.errors import UsageError
from xtoken_jax.files import replaced_file
from xtoken_jax.text import ByteTokenizer, Encoded

if TYPE_CHECKING:
    from xtoken_jax.projection import Projection


@dataclass(frozen=True)
class Align:
    """Show which student tokens and which teacher tokens spell the same bytes."""

    student: str
    """Tokenizer: local directory, `asset:NAME` or hub id."""
    teacher: str
    """Likewise."""
    text: str | None = None
    """The text; else give `--file`."""
    file: Path | None = None
    """A UTF-8 file with the text."""
    teacher_file: Path | None = None
    """A UTF-8 file with the teacher's text, where it differs (another chat template)."""
    parse_control: bool = False
    """Control tokens that the text spells become control tokens, as in a rendered chat."""
    json: bool = False
    """Print JSON."""
    html: Path | None = None
    """Write a page that opens offline, with the row of W of each student token."""
    projection: Path | None = None
    """W for the page, from `xtoken project`; default: built for it."""

    def __call__(self) -> None:
        """Print the alignment."""
        from xtoken_jax.align import align, alignment_record

        texts = self._texts()
        tokenizers = ByteTokenizer.load(self.student), ByteTokenizer.load(self.teacher)
        encoded = (
            tokenizers[0].encode([texts[0]], parse_control=self.parse_control),
            tokenizers[1].encode([texts[1]], parse_control=self.parse_control),
        )
        record = alignment_record(align(*encoded, *tokenizers), *encoded, *tokenizers)
        if self.html is not None:
            self._write_page(record, texts[0], encoded, tokenizers)
        if self.json:
            print_json(record)
        elif self.html is not None:
            OUT.print(f"page: {self.html}")
        else:
            from xtoken_jax.report import alignment_table

            OUT.print(alignment_table(record))

    def _texts(self) -> tuple[str, str]:
        if (self.text is None) == (self.file is None):
            raise UsageError("give the text either as `--text` or as `--file`")
        if self.text is not None:
            text = checked_utf8(self.text, option="--text")
        else:
            text = read_utf8(Path(str(self.file)), option="--file")
        if self.teacher_file is None:
            return text, text
        return text, read_utf8(self.teacher_file, option="--teacher-file")

    def _write_page(
        self,
        record: dict[str, Any],
        text: str,
        encoded: tuple[Encoded, Encoded],
        tokenizers: tuple[ByteTokenizer, ByteTokenizer],
    ) -> None:
        from xtoken_jax.projection import build_projection, load_projection
        from xtoken_jax.report import alignment_page

        student, teacher = tokenizers
        if self.projection is None:
            projection = build_projection(student, teacher)
        else:
            projection = load_projection(self.projection, student=student, teacher=teacher)
        record = dict(record)
        for side, tokens, tokenizer in zip(
            ("student", "teacher"), encoded, tokenizers, strict=True
        ):
            spelt = [content.hex() for content in tokenizer.contents(tokens)]
            record[side] = record[side] | {"bytes": spelt}
        record["student"]["projection"] = _rows(projection, record["student"]["ids"], teacher)
        title = f"{student.name} and {teacher.name}"
        with replaced_file(Path(str(self.html))) as temporary:
            temporary.write_text(alignment_page(record, text, title=title), encoding="utf-8")


def _rows(
    projection: "Projection", student_ids: list[int], teacher: ByteTokenizer
) -> list[list[tuple[str, float]]]:
    """The row of W of each token: teacher tokens as text, with their weights."""
    return [
        [
            (teacher.display(id), round(weight, 4))
            for id, weight in zip(
                projection.ids_VK[row].tolist(), projection.weights_VK[row].tolist(), strict=True
            )
            if id >= 0
        ]
        for row in student_ids
    ]
