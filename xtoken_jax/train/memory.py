"""Out of device memory, in one line that says what to lower."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from xtoken_jax.config import ExperimentConfig
from xtoken_jax.errors import XTokenError

# Of XLA's allocators, and of its compiler for TPU.
_BYTES = re.compile(r"(?:allocate|allocating) (\d+) bytes")
_USED = re.compile(r"Used [\d.]+\w+ of [\d.]+\w+")


@contextmanager
def memory_advice(config: ExperimentConfig) -> Iterator[None]:
    """Turn a device's complaint about memory, at compilation or at run time, into advice.

    Raises:
        XTokenError: the block ran out of device memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        raise XTokenError(_advice(config, str(error))) from error


def _advice(config: ExperimentConfig, complaint: str) -> str:
    data, mesh = config.data, config.mesh
    lengths = [f"`data.student_length` {data.student_length}"]
    lengths += [f"`teachers.{name}.length` {t.length}" for name, t in config.teachers.items()]
    return (
        f"out of device memory{_amount(complaint)} with `data.batch_size` {data.batch_size}, "
        f"{', '.join(lengths)} on a mesh of data={mesh.data}, fsdp={mesh.fsdp}, "
        f"tensor={mesh.tensor}; {'; '.join(_knobs(config))}"
    )


def _amount(complaint: str) -> str:
    if found := _BYTES.search(complaint):
        return f" (wanted {int(found[1]) / 2**30:.2f} GiB more)"
    found = _USED.search(complaint)
    return f" ({found[0]})" if found else ""


def _knobs(config: ExperimentConfig) -> list[str]:
    """What lowers the need, the cheapest first."""
    knobs = []
    if config.student.remat != "full":
        knobs.append(f"set `student.remat` to full (is {config.student.remat})")
    block = config.loss.block_tokens
    if block > 256:
        knobs.append(f"lower `loss.block_tokens` (is {block})")
    shards = config.mesh.data * config.mesh.fsdp
    if config.data.batch_size > shards * (parts := config.optim.accumulation_steps):
        knobs.append(f"raise `optim.accumulation_steps` (is {parts})")
    knobs.append("lower `data.batch_size` or the lengths")
    knobs.append("raise `mesh.fsdp` or `mesh.tensor` where there are more devices")
    return knobs
