"""Kill a training run again and again, and compare its end with that of a run left alone.

    python scripts/crash_test.py --kills 20 --seed 0 --json

Makes a tiny experiment of its own, trains it once without interruption, then again with `kill -9`
at random moments: while it starts, in or between steps, in a save, after the last step. Losses,
order of the data, parameters, optimiser state and the exported student must be the same to the bit.
Exit code 1 where they are not.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np
import orbax.checkpoint as ocp
import yaml

from tests.tiny import tiny_config
from xtoken_jax.config import to_dict
from xtoken_jax.train.metrics import TIMINGS

ROOT = Path(__file__).resolve().parent.parent
EVERY_STEPS = 4
MOST_STEPS_A_LIFE = 7
POLL_SECONDS = 0.001
LONGEST_LIFE_SECONDS = 600.0


@dataclass(frozen=True)
class Run:
    """A run's config file and its directory."""

    config: Path
    directory: Path

    def start(self) -> subprocess.Popen[str]:
        """Start or go on, as a user does."""
        log = self.directory.with_suffix(".log").open("a")
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(self.config.parent / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        }
        command = [sys.executable, "-m", "xtoken_jax.cli", "train", str(self.config)]
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, text=True)

    def finish(self) -> None:
        """Run to the end.

        Raises:
            RuntimeError: it failed; what it said is in the log beside its directory.
        """
        if code := self.start().wait(LONGEST_LIFE_SECONDS):
            log = self.directory.with_suffix(".log").read_text()
            raise RuntimeError(f"the run failed with exit code {code}:\n{log[-2000:]}")

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, but for timings and a line that a kill cut short."""
        path = self.directory / "metrics.jsonl"
        records = []
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
            for timing in TIMINGS:
                records[-1].pop(timing, None)
        return records

    def last_logged(self) -> int:
        """The last step in metrics.jsonl."""
        return max((record["step"] for record in self.metrics()), default=0)

    def is_saving(self) -> bool:
        """Whether a checkpoint is being written."""
        return any((self.directory / "checkpoints").glob("*.orbax-checkpoint-tmp*"))

    def has_saved(self, step: int) -> bool:
        """Whether a checkpoint is whole."""
        return (self.directory / "checkpoints" / str(step)).exists()


def make_run(work: Path, name: str, steps: int) -> Run:
    directory = work / name
    config = tiny_config(
        work,
        run_dir=str(directory),
        optim={"steps": steps},
        checkpoint={"every_steps": EVERY_STEPS},
    )
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    return Run(path, directory)


def choose_moment(run: Run, draw: random.Random, *, steps: int, is_last: bool):
    """When to kill: a condition to wait for, and the seconds from then on."""
    if is_last:
        return lambda: run.has_saved(steps), draw.uniform(0, 0.5)
    target = run.last_logged() + draw.randint(1, MOST_STEPS_A_LIFE)
    kind = draw.choices(("starting", "step", "save"), (1, 4, 5))[0]
    if kind == "starting":
        return lambda: True, draw.uniform(0, 8)
    if kind == "save":
        return lambda: run.is_saving() and run.last_logged() >= target, draw.uniform(0, 0.1)
    return lambda: run.last_logged() >= target, draw.uniform(0, 0.03)


def kill_once(run: Run, reached: Callable[[], bool], delay: float, steps: int) -> str | None:
    """Start, wait, kill; returns what the run was doing, None if it had ended by itself."""
    before = run.last_logged()
    process = run.start()
    deadline = time.monotonic() + LONGEST_LIFE_SECONDS
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    time.sleep(delay)
    if process.poll() is not None:
        if process.returncode:
            raise RuntimeError(run.directory.with_suffix(".log").read_text()[-2000:])
        return None
    process.send_signal(signal.SIGKILL)
    process.wait()
    if run.is_saving():
        return "in a save"
    if run.has_saved(steps):
        return "after the last step"
    return "in or between steps" if run.last_logged() != before else "before a step was logged"


def differences(left: Run, right: Run, steps: int) -> list[str]:
    """What two finished runs do not have in common, to the bit."""
    found = []
    if left.metrics() != right.metrics():
        found.append("metrics.jsonl")
    names = sorted(path.name for path in (left.directory / "student").iterdir())
    for name in names:
        files = [run.directory / "student" / name for run in (left, right)]
        if files[0].read_bytes() != files[1].read_bytes():
            found.append(f"student/{name}")
    saved = [run.directory.absolute() / "checkpoints" / str(steps) for run in (left, right)]
    places = [json.loads((path / "data" / "metadata").read_text()) for path in saved]
    if places[0] != places[1]:
        found.append("the place in the data")
    states = [ocp.StandardCheckpointer().restore(path / "state") for path in saved]
    same = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), *states)
    if not all(jax.tree.leaves(same)):
        found.append("the state")
    return found


def remnants(run: Run) -> list[str]:
    """Files that a finished run should not have."""
    paths = (str(path.relative_to(run.directory)) for path in run.directory.rglob("*"))
    return sorted(path for path in paths if "tmp" in path or "damaged" in path)


def crash(work: Path, *, kills: int, seed: int, say: Callable[[str], None]) -> Mapping[str, Any]:
    draw = random.Random(seed)
    steps = (kills + 2) * MOST_STEPS_A_LIFE
    whole, killed = (make_run(work, name, steps) for name in ("whole", "killed"))
    began = time.monotonic()
    whole.finish()
    say(f"uninterrupted: {steps} steps, {time.monotonic() - began:.0f} s")
    moments: Counter[str] = Counter()
    while moments.total() < kills:
        is_last = moments.total() == kills - 1
        moment = choose_moment(killed, draw, steps=steps, is_last=is_last)
        doing = kill_once(killed, *moment, steps)
        if doing is None:
            break
        moments[doing] += 1
        say(f"kill {moments.total()}: {doing}, last logged step {killed.last_logged()}")
    killed.finish()
    return {
        "kills": moments.total(),
        "moments": dict(moments),
        "steps": steps,
        "seed": seed,
        "seconds": round(time.monotonic() - began),
        "differences": differences(whole, killed, steps),
        "remnants": remnants(killed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--keep", type=Path, help="work here, and leave everything")
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.keep or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        result = crash(work, kills=arguments.kills, seed=arguments.seed, say=say)
    if arguments.json:
        print(json.dumps(result))
    else:
        same = "identical to the bit" if not result["differences"] else "NOT identical"
        print(f"{result['kills']} kills {result['moments']}: {same}")
    failed = result["differences"] or result["remnants"] or result["kills"] < arguments.kills
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
