"""W as JSON."""

import json
from pathlib import Path

import numpy as np
import pytest

from xtoken_jax.errors import UsageError
from xtoken_jax.projection import build_projection, projection_record


def test_counts_and_the_rows_of_some_tokens(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("smollm2-135m")
    projection = build_projection(student, teacher)
    tokens = [b"201", b" apples", b"\xf0\x9f"]
    record = projection_record(projection, student, teacher, tokens=tokens, path=Path("w"))
    assert json.loads(json.dumps(record)) == record  # plain values throughout
    examples = record.pop("examples")
    assert record == {
        "student": "asset:llama3",
        "teacher": "asset:smollm2-135m",
        "rows": 128256,
        "columns": 49152,
        "entries": 263440,
        "exact": 39310,
        "single_piece_rows": 39511,
        "empty_rows": 272,
        "unreachable_teacher_tokens": 8734,
        "path": "w",
    }
    assert examples[0].keys() == {"token", "pieces", "weights"}
    assert (examples[0]["token"], examples[0]["pieces"]) == ("201", ["2", "0", "1"])
    np.testing.assert_allclose(examples[0]["weights"], [0.9009, 0.0901, 0.0090], atol=5e-5)
    assert examples[1] == {"token": " apples", "pieces": [" apples"], "weights": [1.0]}
    assert examples[2]["token"] == r"\xf0\x9f"


def test_a_token_that_the_student_lacks_is_named(tokenizer):
    side = tokenizer("smollm2-135m")
    projection = build_projection(side, side)
    with pytest.raises(UsageError, match="asset:smollm2-135m has no token 'zzzz'"):
        projection_record(projection, side, side, tokens=[b"zzzz"])
