"""Steps whose loss is not finite, within a limit and past it."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from tests.tiny import tiny_config
from xtoken_jax.errors import XTokenError
from xtoken_jax.report import read_metrics
from xtoken_jax.train import run
from xtoken_jax.train.metrics import TIMINGS
from xtoken_jax.train.run import train


def breaks_at(monkeypatch, *numbers):
    """W is NaN in these steps."""
    real = run.make_step

    def breaking(*args, **kwargs):
        step = real(*args, **kwargs)

        def broken(state, frozen, batch):
            if int(state.step) + 1 in numbers:
                tables = jax.tree.map(
                    lambda x: x * float("nan") if x.dtype == np.float32 else x, frozen.tables
                )
                frozen = frozen._replace(tables=tables)
            return step(state, frozen, batch)

        return broken

    monkeypatch.setattr(run, "make_step", breaking)


def records(run_dir):
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]


def test_skips_within_the_limit_and_stops_past_it(tmp_path, monkeypatch, capfd):
    def config(limit):
        return tiny_config(
            tmp_path,
            optim={"steps": 6, "warmup_steps": 3, "max_skipped_steps": limit},
            checkpoint={"every_steps": 2, "keep": 3},
            evaluation={"sources": []},
        )

    breaks_at(monkeypatch, 2, 5)
    told = r"step 5 must .* loss nan.* after 1 skipped steps; records: .*train\.jsonl:\d+.* above 1"
    with pytest.raises(XTokenError, match=told):
        train(config(1))
    said = capfd.readouterr().err
    assert "step 2 skipped: loss nan, gradient_norm nan; records: " in said
    assert "(1 of 1)" in said

    run_dir = train(config(2)).run_dir  # meets the same batch again
    assert "(2 of 2)" in capfd.readouterr().err
    found = records(run_dir)
    assert [record["step"] for record in found] == [1, 2, 3, 4, 5, 6]
    assert [record["step"] for record in found if "skipped" in record] == [2, 5]
    assert all("train.jsonl" in name for name in found[1]["skipped"])
    # The warm-up goes on where it was.
    rates = [record["learning_rate"] for record in found if "skipped" not in record]
    np.testing.assert_allclose(np.diff(rates[:3]), rates[0], rtol=1e-6)  # float32
    assert len(read_metrics(run_dir)) == 4

    # A start from between the two skips ends the same, to the bit.
    again = dataclasses.replace(config(2), run_dir=str(tmp_path / "again"))
    shutil.copytree(run_dir, again.run_dir)
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "6")
    assert records(train(again).run_dir) == found
