"""The device mesh."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh

from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.hf_directory import read_config
from xtoken_jax.models.sharding import MESH_AXES, padded_vocab_size, state_shardings
from xtoken_jax.text import resolve


def make_mesh(*, data: int, fsdp: int, tensor: int) -> Mesh:
    """A mesh over the first `data x fsdp x tensor` devices, sharded by the compiler (Auto axes).

    Raises:
        UsageError: there are fewer devices.
    """
    return mesh_over(jax.devices(), data=data, fsdp=fsdp, tensor=tensor)


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
