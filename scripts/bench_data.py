"""Rates of the data path: tokenise, align and pack in one process, and read what was prepared.

    python scripts/bench_data.py --json

The corpus is the language reference of Python itself at 1,024 tokens a row. Rates are student
tokens a second that are no padding. Rows are read at random, in batches of 8.
"""

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

from xtoken_jax.config import DataConfig, SourceConfig
from xtoken_jax.data import (
    Lengths,
    PreparedRows,
    Tally,
    pack,
    python_docs,
    row_batches,
    try_examples,
)
from xtoken_jax.data import prepare as prepare_rows
from xtoken_jax.train.data import load_plan

LENGTHS = Lengths(1024, {"teacher": 1024})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", default="asset:llama3")
    parser.add_argument("--teacher", default="asset:qwen3")
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = DataConfig(train=(SourceConfig(kind="python_docs"),))
    make_plan = partial(load_plan, data, options.student, {"teacher": options.teacher}, LENGTHS)
    figures = {
        "student": options.student,
        "teacher": options.teacher,
        "on_the_fly_tokens_per_second": on_the_fly(make_plan()),
        "prepared_tokens_per_second": prepared(make_plan, options.batches),
    }
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name}: {value if isinstance(value, str) else f'{value:,.0f}'}")


def on_the_fly(plan) -> float:
    """Tokenise, align and pack, once warm."""
    documents = list(python_docs())
    for _ in range(2):
        start = time.perf_counter()
        examples = try_examples(documents, plan.student, plan.teachers, plan.lengths)
        pack(examples, plan.lengths)
        seconds = time.perf_counter() - start
    return sum(len(example.student_ids) for example in examples) / seconds


def prepared(make_plan, num_batches: int) -> float:
    """Batches from shards, as training reads them, without waiting for a step in between."""
    with tempfile.TemporaryDirectory() as directory:
        prepare_rows(Path(directory), [python_docs], make_plan, Tally())
        batches = iter(row_batches(PreparedRows(Path(directory)), batch_size=8, seed=0))
        for _ in range(20):
            next(batches)
        start, num_tokens = time.perf_counter(), 0
        for _ in range(num_batches):
            num_tokens += next(batches).num_tokens
        return num_tokens / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
