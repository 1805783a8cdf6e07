"""`xtoken train` in a process of its own: a second start beside it, and SIGTERM."""

import json
import os
import signal
import subprocess
import sys
import time

import yaml

from tests.commands import complaint
from tests.conftest import REPOSITORY
from tests.tiny import tiny_config
from xtoken_jax.config import to_dict


def test_a_second_start_is_refused_and_sigterm_saves_and_ends_the_first(tmp_path):
    config = tiny_config(
        tmp_path,
        optim={"steps": 1_000_000},
        checkpoint={"every_steps": 1_000_000},
        evaluation={"sources": []},
    )
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    metrics = tmp_path / "run" / "metrics.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "xtoken_jax.cli", "train", str(path)],
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".jax_cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not metrics.exists() or not metrics.stat().st_size:
            assert process.poll() is None
            time.sleep(0.05)
        code, message = complaint("train", path)
        assert code == 1
        assert message.endswith(f"must not be in use, but process {process.pid} is training in it")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert out.startswith(f"SIGTERM: saved at step {last} of 1000000; the same command goes on")
    assert [entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir()] == [str(last)]
