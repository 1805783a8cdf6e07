"""Several processes that run one program, one on each host of a pod.

Every process runs the same lines in the same order, since each collective takes all of them; the
first alone writes files and speaks. With one process all of this is nothing.
"""

import os
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from xtoken_jax.errors import UsageError

_VARIABLES = {
    "coordinator_address": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}


def join_processes(
    *,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Become one of several processes; must come before anything else asks JAX for its devices.

    What is not given is taken from `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID`, and then from the cluster, where JAX knows it: Cloud TPU pods, Slurm, Open
    MPI, Kubernetes.

    Args:
        coordinator_address: Host and port of the first process.
        num_processes: In all.
        process_id: This one's number, from 0.
        environment: Variables.

    Raises:
        UsageError: something is neither given nor found, is wrong, or the others did not come.
    """
    given = {
        "coordinator_address": coordinator_address,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    for name, variable in _VARIABLES.items():
        if given[name] is None and variable in environment:
            given[name] = _value(name, variable, environment[variable])
    try:
        jax.distributed.initialize(**given)  # pyright: ignore[reportArgumentType]
    except (ValueError, RuntimeError) as error:
        told = ", ".join(f"{name} {value}" for name, value in given.items())
        reason = " ".join(str(error).split())
        raise UsageError(f"the processes cannot find each other ({told}): {reason}") from error


def _value(name: str, variable: str, value: str) -> str | int:
    if name == "coordinator_address":
        return value
    if not value.isdecimal():
        raise UsageError(f"`{variable}` must be a number, got {value!r}")
    return int(value)


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Return once every process is here; `what` names the place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def gathered(x: jax.Array) -> np.ndarray:
    """An array on the host, wherever its parts are; all processes must ask for it."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def say(line: str) -> None:
    """Print a line on stderr, once for all processes."""
    if is_first():
        Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False)
