"""The device mesh."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from xtoken_jax.errors import UsageError
from xtoken_jax.models.sharding import MESH_AXES


def make_mesh(*, data: int, fsdp: int, tensor: int) -> Mesh:
    """A mesh over the first `data x fsdp x tensor` devices, sharded by the compiler (Auto axes).

    Raises:
        UsageError: there are fewer devices.
    """
    shape = (data, fsdp, tensor)
    needed, devices = int(np.prod(shape)), jax.devices()
    if needed > len(devices):
        raise UsageError(
            f"`mesh` of data={data}, fsdp={fsdp}, tensor={tensor} needs {needed} devices, "
            f"got {len(devices)} of kind {devices[0].device_kind}"
        )
    types = (AxisType.Auto,) * len(shape)
    return jax.make_mesh(shape, MESH_AXES, axis_types=types, devices=devices[:needed])
