"""The device mesh."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.hf_directory import read_config
from xtoken_jax.models.sharding import MESH_AXES, padded_vocab_size, state_shardings
from xtoken_jax.text import resolve

Tree = TypeVar("Tree")


def make_mesh(*, data: int, fsdp: int, tensor: int) -> Mesh:
    """A mesh over the first `data x fsdp x tensor` devices, sharded by the compiler (Auto axes).

    Raises:
        UsageError: there are fewer devices, or one of several processes has none among them.
    """
    mesh = mesh_over(jax.devices(), data=data, fsdp=fsdp, tensor=tensor)
    if jax.process_count() > 1 and mesh.size != jax.device_count():
        raise UsageError(
            f"`mesh` must be over all {jax.device_count()} devices of {jax.process_count()} "
            f"processes, got {mesh.size}; set `mesh.data`, `mesh.fsdp` and `mesh.tensor`"
        )
    return mesh


def host_part(mesh: Mesh) -> tuple[int, int]:
    """Which of how many equal parts of a batch's rows this process's devices need.

    Processes that share rows, along the axis `tensor`, have the same part. Where a process's rows
    are not next to each other, it is all of them.
    """
    of_process = np.vectorize(lambda device: device.process_index)(mesh.devices)
    by_rows = of_process.reshape(-1, mesh.shape["tensor"])  # data and fsdp are the first two axes
    own = np.flatnonzero((by_rows == jax.process_index()).any(axis=1))
    num_parts, rest = divmod(len(by_rows), len(own))
    adjacent = own[-1] - own[0] + 1 == len(own) and own[0] % len(own) == 0
    if rest or not adjacent:
        return 0, 1
    return int(own[0]) // len(own), num_parts


def replicated(tree: Tree, mesh: Mesh) -> Tree:
    """A tree whose arrays are whole on every device; all processes must have the same."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.device_put(np.asarray(x), sharding), tree)


def mesh_over(devices: Sequence[Any], *, data: int, fsdp: int, tensor: int) -> Mesh:
    """The same over the first of these devices, which need not be there.

    Raises:
        UsageError: there are fewer devices.
    """
    shape = (data, fsdp, tensor)
    needed = int(np.prod(shape))
    if needed > len(devices):
        raise UsageError(
            f"`mesh` of data={data}, fsdp={fsdp}, tensor={tensor} needs {needed} devices, "
            f"got {len(devices)} of kind {devices[0].device_kind}"
        )
    types = (AxisType.Auto,) * len(shape)
    return jax.make_mesh(shape, MESH_AXES, axis_types=types, devices=devices[:needed])


def check_models(models: Mapping[str, str], mesh: Mesh) -> None:
    """Check that a mesh can hold models, from their config.json alone.

    Args:
        models: Their references, by the config's field.
        mesh: They are to be sharded over.

    Raises:
        UsageError: an axis does not divide a dimension that it shards.
    """
    for field, reference in models.items():
        architecture = Architecture.from_hf(read_config(resolve(reference, weights=False)))
        rows = padded_vocab_size(architecture.vocab_size, mesh)
        decoder = nnx.eval_shape(
            lambda of=architecture, rows=rows: Decoder(of, rngs=nnx.Rngs(0), padded_vocab_size=rows)
        )
        try:
            state_shardings(nnx.state(decoder), mesh)
        except XTokenError as error:
            raise UsageError(f"`mesh` cannot hold `{field}` {reference}: {error}") from error
