"""Two real processes that train as one, stop as one, and go on after a kill."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from tests.tiny import tiny_config
from xtoken_jax.config import to_dict
from xtoken_jax.errors import UsageError
from xtoken_jax.models.sharding import MESH_AXES
from xtoken_jax.processes import join_processes
from xtoken_jax.train.mesh import host_part
from xtoken_jax.train.run import train

ROOT = Path(__file__).resolve().parents[2]
STEPS = 40
LONGEST_SECONDS = 240


class Pair:
    """Two processes of a run, one device each."""

    def __init__(self, config: Path, run_dir: Path) -> None:
        self.run_dir = run_dir
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        environment = os.environ | {
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": "2",
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "xtoken_jax.cli", "train", str(config)]
        self.processes = [
            subprocess.Popen(
                [*command, "--process-id", str(number), "--run-dir", str(run_dir)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]

    def wait_for_step(self, step: int) -> None:
        """Return once a step is in the log."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while len(steps(self.run_dir)) < step:
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in self.processes)
            time.sleep(0.02)

    def signal(self, number: int, *which: int) -> None:
        """Send a signal to some of the processes."""
        for index in which:
            self.processes[index].send_signal(number)

    def finish(self) -> list[tuple[int, str]]:
        """Exit code and stderr of each."""
        errors = [process.communicate(timeout=LONGEST_SECONDS)[1] for process in self.processes]
        return [(p.returncode, e) for p, e in zip(self.processes, errors, strict=True)]


def steps(run_dir):
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def test_two_processes_are_one_run_through_a_stop_and_a_kill(tmp_path):
    config = tiny_config(
        tmp_path,
        mesh={"fsdp": 2},
        optim={"steps": STEPS, "accumulation_steps": 2, "learning_rate": 1e-3},
        checkpoint={"every_steps": 8},
    )
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    alone = train(config)
    run_dir = tmp_path / "two"

    # One of them is asked to stop: both do, at one step, and save it.
    pair = Pair(path, run_dir)
    pair.wait_for_step(2)
    pair.signal(signal.SIGTERM, 1)
    assert [code for code, _ in pair.finish()] == [0, 0]
    stopped_at = len(steps(run_dir))
    assert 2 <= stopped_at < STEPS
    assert (run_dir / "checkpoints" / str(stopped_at)).is_dir()

    # Both are killed.
    pair = Pair(path, run_dir)
    pair.wait_for_step(stopped_at + 2)
    pair.signal(signal.SIGKILL, 0, 1)
    assert [code for code, _ in pair.finish()] == [-signal.SIGKILL] * 2

    ended = Pair(path, run_dir).finish()
    assert [code for code, _ in ended] == [0, 0]
    assert "going on from step" in ended[0][1]
    assert "going on from step" not in ended[1][1]

    # Where rows are summed up differs, and Adam makes the most of rounding.
    expected, found = steps(alone.run_dir), steps(run_dir)
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    for name in ("loss", "cross_entropy", "distillation", "gradient_norm", "tiny/num_chunks"):
        values = [[line[name] for line in lines] for lines in (found, expected)]
        np.testing.assert_allclose(*values, rtol=2e-3, err_msg=name)
    weights, others = (
        load_file(directory / "student" / "model.safetensors")
        for directory in (run_dir, alone.run_dir)
    )
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        np.testing.assert_allclose(weight, others[name], atol=2e-3, err_msg=name)
    both = (run_dir, alone.run_dir)
    found, expected = (json.loads((d / "evaluation.json").read_text()) for d in both)
    for name, result in expected.items():
        assert found[name]["all"] == pytest.approx(result["all"], rel=1e-3)


@dataclasses.dataclass(frozen=True)
class FakeDevice:
    """A device of some process."""

    process_index: int


@pytest.mark.parametrize(
    ("processes", "shape", "own", "part"),
    [
        ([0, 0, 0, 0], (2, 2, 1), 0, (0, 1)),
        ([0, 0, 1, 1], (1, 4, 1), 0, (0, 2)),
        ([0, 0, 1, 1], (1, 4, 1), 1, (1, 2)),
        ([0, 0, 1, 1, 2, 2, 3, 3], (2, 2, 2), 2, (2, 4)),
        ([0, 1, 0, 1], (2, 1, 2), 1, (0, 1)),  # `tensor` over two processes: the same rows
        ([0, 0, 1, 1, 2, 2, 3, 3], (2, 1, 4), 3, (1, 2)),
        ([0, 1, 0, 1], (4, 1, 1), 1, (0, 1)),  # rows that are not next to each other: all
    ],
    ids=str,
)
def test_each_process_reads_the_rows_of_its_devices(monkeypatch, processes, shape, own, part):
    devices = np.array([FakeDevice(number) for number in processes]).reshape(shape)

    class FakeMesh:
        """As much of a mesh as is looked at."""

    FakeMesh.devices, FakeMesh.shape = devices, dict(zip(MESH_AXES, shape, strict=True))
    monkeypatch.setattr(jax, "process_index", lambda: own)
    assert host_part(FakeMesh) == part


def test_a_wrong_number_of_processes_is_one_line():
    with pytest.raises(UsageError, match="`JAX_PROCESS_ID` must be a number, got 'one'"):
        join_processes(coordinator_address="x:1", environment={"JAX_PROCESS_ID": "one"})
    with pytest.raises(UsageError, match=r"cannot find each other .*process_id 2"):
        join_processes(coordinator_address="x:1", num_processes=2, process_id=2, environment={})
