"""`xtoken project`."""

import os
from dataclasses import dataclass
from pathlib import Path

from xtoken_jax.cli.output import OUT, print_json
from xtoken_jax.errors import UsageError
from xtoken_jax.projection import Canonicalization, LongPieces
from xtoken_jax.text import ByteTokenizer


@dataclass(frozen=True)
class Project:
    """Build W for a pair of tokenizers and save it."""

    student: str
    """Tokenizer of the rows: local directory, `asset:NAME` or hub id."""
    teacher: str
    """Tokenizer of the columns."""
    out: Path | None = None
    """File to write, `.safetensors`; none only reports."""
    beta: float = 0.9
    """Weight of the first piece before a row is normalised."""
    gamma: float = 0.1
    """Ratio between a piece's weight and the one before it."""
    max_pieces: int = 4
    """Pieces kept of a student token."""
    long_pieces: LongPieces = "truncate"
    """A token of more pieces keeps its first ones, or loses its row."""
    canonicalization: Canonicalization = "exact"
    """Tokens match by their bytes, or by the paper's lossy rules (for comparison)."""
    reverse: bool = False
    """Spell teacher tokens that nothing matches by the student, and add their weights."""
    special_similarity: bool = False
    """Pair control tokens that have no counterpart by role by their names."""
    show: tuple[str, ...] = ()
    """Student tokens whose rows are printed; default `201`, where the student has it."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        """Build, save and report."""
        from xtoken_jax.projection import build_projection, projection_record, save_projection

        student, teacher = ByteTokenizer.load(self.student), ByteTokenizer.load(self.teacher)
        try:
            projection = build_projection(
                student,
                teacher,
                beta=self.beta,
                gamma=self.gamma,
                max_pieces=self.max_pieces,
                long_pieces=self.long_pieces,
                canonicalization=self.canonicalization,
                reverse=self.reverse,
                special_similarity=self.special_similarity,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
        tokens = [os.fsencode(token) for token in self.show]
        if not tokens and b"201" in student.id_of_bytes:
            tokens = [b"201"]
        record = projection_record(projection, student, teacher, tokens=tokens, path=self.out)
        if self.out is not None:
            save_projection(projection, self.out)
        if self.json:
            print_json(record)
        else:
            from xtoken_jax.report import projection_table

            OUT.print(projection_table(record))
