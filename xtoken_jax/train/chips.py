"""TPU chips and topologies, for planning on a machine that has none."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax

from xtoken_jax.errors import UsageError

# Compiles for the (simulated) devices of this process instead of a TPU.
CPU = "cpu"


@dataclass(frozen=True)
class Chip:
    """What a chip has, per chip.

    Attributes:
        hbm_bytes: Of memory.
        flops: Per second, bfloat16.
        bandwidth: Of the memory, bytes a second.
        interconnect: To the other chips, both directions, bytes a second.
        clock: Cycles a second, from `flops` and the size and number of the matrix units.

    Source: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, "key chip specifications".
    """

    hbm_bytes: float
    flops: float
    bandwidth: float
    interconnect: float
    clock: float

    def per_device(self, devices: int) -> "Chip":
        """The share of one of `devices` that the chip counts as."""
        return Chip(
            self.hbm_bytes / devices,
            self.flops / devices,
            self.bandwidth / devices,
            self.interconnect / devices,
            self.clock,
        )


CHIPS = {
    "v4": Chip(32e9, 275e12, 1200e9, 300e9, 1.05e9),
    "v5e": Chip(16e9, 197e12, 819e9, 400e9, 1.50e9),
    "v5p": Chip(95e9, 459e12, 2765e9, 1200e9, 1.75e9),
    "v6e": Chip(32e9, 918e12, 1638e9, 800e9, 1.75e9),
}


def topology_devices(topology: str) -> tuple[list[Any], Chip | None]:
    """The devices of a topology such as `v5e:4x4`, and what each is.

    The numbers after the colon are chips along each side. `cpu` stands for this process's own
    devices, of which nothing is known.

    Raises:
        UsageError: there is no such chip or no such arrangement of it, or libtpu is not installed.
    """
    if topology == CPU:
        return jax.devices(CPU), None
    name, _, shape = topology.partition(":")
    if name not in CHIPS or not shape:
        raise UsageError(
            "`--topology` must be CHIP:SHAPE, such as v5e:4x4 or v5p:2x2x2, with a chip of "
            f"{', '.join(CHIPS)}, got {topology!r}"
        )
    if find_spec("libtpu") is None:
        raise UsageError(
            f"`--topology` {topology} needs libtpu, the compiler for TPU: "
            "`pip install 'xtoken_jax[plan]'`"
        )
    _quiet()
    from jax.experimental import topologies

    try:
        devices = list(topologies.get_topology_desc(topology, platform="tpu").devices)
    except jax.errors.JaxRuntimeError as error:
        raise UsageError(
            f"`--topology` must be an arrangement of {name} chips that exists, got {topology!r}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return devices, CHIPS[name].per_device(_devices_per_chip(devices))


def _devices_per_chip(devices: Sequence[Any]) -> int:
    """2 where both cores of a chip are devices of their own."""
    return max(Counter(tuple(device.coords) for device in devices).values())


def _quiet() -> None:
    """Tell libtpu not to look for the TPU of this machine, which it would complain about."""
    for name, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-16"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),  # two plans may be made at once
    ):
        os.environ.setdefault(name, value)
