"""`xtoken align`."""

from dataclasses import dataclass
from pathlib import Path

from xtoken_jax.cli.output import OUT, print_json
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.text import ByteTokenizer


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
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        """Print the alignment."""
        from xtoken_jax.align import align_bytes, alignment_record

        text = _text_of(self.text, self.file)
        student, teacher = ByteTokenizer.load(self.student), ByteTokenizer.load(self.teacher)
        student_encoded, teacher_encoded = student.encode([text]), teacher.encode([text])
        alignment = align_bytes(student_encoded, teacher_encoded, student, teacher)
        record = alignment_record(
            alignment, student_encoded, teacher_encoded, student, teacher, index=0
        )
        if self.json:
            print_json(record)
        else:
            from xtoken_jax.report import alignment_table

            OUT.print(alignment_table(record))


def _text_of(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise UsageError("give the text either as `--text` or as `--file`")
    try:
        if text is not None:
            text.encode()  # what the shell passes need not be UTF-8
            return text
        return Path(str(file)).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"`--file` {file} does not exist") from error
    except UnicodeEncodeError as error:
        raise UsageError(f"`--text` must be UTF-8, got a bad byte at {error.start}") from error
    except UnicodeDecodeError as error:
        raise XTokenError(f"{file} must be UTF-8, got a bad byte at {error.start}") from error
