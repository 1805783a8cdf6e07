"""`python -m pip download ... --dest DIR NAME==VERSION` from a folder, or a failure on request.

FAKE_PIP_INDEX: the folder; its wheel is what every requirement gets, and `calls.log` grows by a
line per call, its arguments. FAKE_PIP_MODE: `copy` (default), `slow`, `fail`, or `killed`, which
stops
half-way and takes the calling process along as a power cut would.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    index = Path(os.environ["FAKE_PIP_INDEX"])
    destination = Path(arguments[arguments.index("--dest") + 1])
    with (index / "calls.log").open("a") as log:
        log.write(" ".join(arguments) + "\n")
    wheel = next(index.glob("*.whl"))
    mode = os.environ.get("FAKE_PIP_MODE", "copy")
    if mode == "fail":
        print("Looking in indexes: https://example.org/simple", file=sys.stderr)
        print("ERROR: No matching distribution found for " + arguments[-1], file=sys.stderr)
        print("hint: something else", file=sys.stderr)
        return 1
    if mode == "killed":
        content = wheel.read_bytes()
        (destination / wheel.name).write_bytes(content[: len(content) // 2])
        os.kill(os.getppid(), signal.SIGKILL)
        return 1
    if mode == "slow":
        time.sleep(0.5)
    shutil.copy(wheel, destination)
    return 0


sys.exit(main(sys.argv[1:]))
