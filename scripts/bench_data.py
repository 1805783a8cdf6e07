"""Rates of the data path: tokenise, align and pack in one process, and read what was prepared.

    python scripts/bench_data.py --json

The corpus is the language reference of Python itself at 1,024 tokens a row. Rates are student
tokens a second that are no padding. Rows are read at random, in batches of 8, by one thread; of
five rounds the middle one counts. Then six steps of a run, whose share of the time that is a wait
for data is told (the first step, which compiles, left out).
"""

import argparse
import dataclasses
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from xtoken_jax.config import DataConfig, SourceConfig, load_config
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
from xtoken_jax.report import read_metrics
from xtoken_jax.train.data import load_plan
from xtoken_jax.train.run import train

LENGTHS = Lengths(1024, {"teacher": 1024})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", default="asset:llama3")
    parser.add_argument("--teacher", default="asset:qwen3")
    parser.add_argument("--batches", type=int, default=200, help="of a round")
    parser.add_argument("--config", default="configs/quickstart.yaml", help="whose steps to time")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = DataConfig(train=(SourceConfig(kind="python_docs"),))
    make_plan = partial(load_plan, data, options.student, {"teacher": options.teacher}, LENGTHS)
    figures = {
        "student": options.student,
        "teacher": options.teacher,
        "on_the_fly_tokens_per_second": on_the_fly(make_plan()),
        "prepared_tokens_per_second": prepared(make_plan, options.batches),
        "step_share_waiting": share_waiting(options.config),
    }
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            shown = f"{value:.3%}" if name == "step_share_waiting" else f"{value:,.0f}"
            print(f"{name}: {value if isinstance(value, str) else shown}")


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
        rates = []
        for _ in range(5):
            start = time.perf_counter()
            num_tokens = sum(next(batches).num_tokens for _ in range(num_batches))
            rates.append(num_tokens / (time.perf_counter() - start))
        return float(np.median(rates))


def share_waiting(path: str) -> float:
    """Of six steps of a config's run without evaluation, the first one left out."""
    config = load_config(path)
    with tempfile.TemporaryDirectory() as directory:
        config = dataclasses.replace(
            config,
            run_dir=directory,
            optim=dataclasses.replace(config.optim, steps=6),
            checkpoint=dataclasses.replace(config.checkpoint, every_steps=6),
            evaluation=dataclasses.replace(config.evaluation, sources=()),
        )
        steps = read_metrics(train(config).run_dir)[1:]
    places = config.data.batch_size * config.data.student_length
    seconds = [places * step["utilisation"] / step["tokens_per_second"] for step in steps]
    return sum(step["data_seconds"] for step in steps) / sum(seconds)


if __name__ == "__main__":
    main()
