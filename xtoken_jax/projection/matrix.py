"""W itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Projection:
    """A sparse, row-stochastic matrix from student tokens to teacher tokens.

    Attributes:
        ids_VK: int32 teacher ids, `-1` where a row has fewer than `K` entries.
        weights_VK: float32, 0 at the pads; a row sums to 1, or to 0 if it is empty.
        num_student_tokens: Rows, V: one past the student's largest id.
        num_teacher_tokens: Columns, U: one past the teacher's largest id.
        student_fingerprint: Of the tokenizer that the rows belong to.
        teacher_fingerprint: Of the tokenizer that the columns belong to.
        options: How it was built, as JSON-compatible values.
        exact_pair_V: True where a row's single entry is an exact 1-to-1 pair, no teacher token
            being in two; None in a matrix made by hand that does not say.
    """

    ids_VK: np.ndarray
    weights_VK: np.ndarray
    num_student_tokens: int
    num_teacher_tokens: int
    student_fingerprint: str
    teacher_fingerprint: str
    options: dict[str, Any]
    exact_pair_V: np.ndarray | None = None

    @property
    def empty_rows(self) -> np.ndarray:
        """Student ids whose mass goes nowhere."""
        return np.flatnonzero(self.ids_VK[:, 0] < 0)

    @property
    def reachable_U(self) -> np.ndarray:
        """True for teacher tokens that some student token puts mass on."""
        reachable_U = np.zeros(self.num_teacher_tokens, bool)
        reachable_U[self.ids_VK[self.ids_VK >= 0]] = True
        return reachable_U
