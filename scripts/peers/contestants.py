"""Contestants of a benchmark, each in a process and an environment of its own."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

THREADS = 2

_HERE = Path(__file__).resolve().parent
_PEERS = _HERE.parent.parent / "build" / "peers"
_PEER_PACKAGES = ["torch==2.13.0", "trl==1.16.0", "transformers==5.23.0", "safetensors"]


def use_two_cores() -> None:
    """Hold this process, and those that it starts, to the same cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "JAX_PLATFORMS": "cpu"}


class Contestant:
    """A process that runs once when told to."""

    def __init__(self, python: str, script: str, case: dict[str, Any], log: Path) -> None:
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [python, str(_HERE / script), json.dumps(case)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.slow_seconds = case["slow_seconds"]
        self.seconds: list[float] = []
        self.facts = self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        last = (self.log.read_text().strip().splitlines() or ["no word"])[-1]
        return {"error": f"ended with {self.process.wait()}: {last[:200]}"}

    def repeat(self) -> None:
        """Run once more, unless it failed or is slow: then its first run counts."""
        if "error" in self.facts:
            return
        if self.facts["first_seconds"] > self.slow_seconds:
            self.seconds = [self.facts["first_seconds"]]
            return
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        self.seconds.append(self._answer()["seconds"])

    def close(self) -> dict[str, Any]:
        """End the process; what is known of the contestant."""
        last = self.process.communicate()[0].strip().splitlines()
        self.facts |= json.loads(last[-1]) if last else {}
        if self.seconds:
            self.facts["seconds"] = statistics.median(self.seconds)
            self.facts["least_seconds"] = min(self.seconds)
        return self.facts


def peer_python(given: str | None) -> str:
    """The interpreter that has the peers; installs them into build/peers where needed."""
    if given:
        return given
    python, done = _PEERS / "bin" / "python", _PEERS / "installed.txt"
    wanted = "\n".join(_PEER_PACKAGES)
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(_PEERS)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run(pip + _PEER_PACKAGES, check=True, stdout=sys.stderr)
        done.write_text(wanted)
    return str(python)
