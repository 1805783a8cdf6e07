"""One contestant of bench_losses.py in its own process: it runs when told to, and says how long.

Python's and NumPy's own parts only, so that every environment can import it.
"""

import argparse
import ctypes
import gc
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def arrays(case: dict[str, Any]) -> list[np.ndarray]:
    """The same inputs for every contestant: what is learned, then the teacher's.

    Either hidden states and unembedding of each side, or the logits that they give, which have a
    standard deviation of about 3 nats.
    """
    draw = np.random.default_rng(0)
    width = case["width"]

    def hidden_and_unembedding(rows):
        hidden_ND = draw.standard_normal((case["tokens"], width), np.float32)
        return hidden_ND, 3 / math.sqrt(width) * draw.standard_normal((rows, width), np.float32)

    student = hidden_and_unembedding(case["student_vocab_size"])
    teacher = hidden_and_unembedding(case["teacher_vocab_size"])
    if case["inputs"] == "logits":
        return [hidden_ND @ rows_VD.T for hidden_ND, rows_VD in (student, teacher)]
    return [*student, *teacher]


def serve(build: Callable[[dict[str, Any]], tuple[Callable[[], float], dict[str, Any]]]) -> None:
    """Build the contestant of the command line, then run it once for each line of the input.

    At the end it says the most memory that was resident since it was built, and what `more` gives.

    Args:
        build: From a case to a call that returns the loss, having computed its gradient, and to
            facts about it; one of them, `more`, may be a function that gives others at the end.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes elsewhere
    parser = argparse.ArgumentParser()
    parser.add_argument("case", type=json.loads)
    case = parser.parse_args().case
    resource.setrlimit(resource.RLIMIT_DATA, (case["limit_bytes"],) * 2)
    try:
        run, facts = build(case)
        more = facts.pop("more", dict)
        facts |= measured(run)
        if facts["first_seconds"] < case["slow_seconds"]:
            # Again, because what the first run freed may still have been counted before it, or
            # may now: an allocator keeps some of it.
            facts["peak_bytes"] = max(facts["peak_bytes"], measured(run)["peak_bytes"])
    except (MemoryError, RuntimeError) as error:
        # PyTorch and XLA say so in their own ways.
        facts, run = {"error": str(error).strip().splitlines()[0][:200] or "out of memory"}, None
        more = dict
    print(json.dumps(facts), file=answers)
    for _ in sys.stdin:
        if run is None:
            return
        start = time.perf_counter()
        run()
        print(json.dumps({"seconds": time.perf_counter() - start}), file=answers)
    print(json.dumps({"resident_bytes": _status("VmHWM"), **more()}), file=answers)


def measured(run: Callable[[], float]) -> dict[str, float]:
    """The loss, seconds, and how far resident memory rises above what it was before the call."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    start = time.perf_counter()
    loss = run()
    seconds = time.perf_counter() - start
    return {"loss": loss, "first_seconds": seconds, "peak_bytes": _status("VmHWM") - before}


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")
