"""Where the parameters and activations of a decoder live on a mesh.

A mesh has the axes ("data", "fsdp", "tensor"). A parameter's name ends in the letters of its shape
(`query_DHE`), and a letter decides the mesh axis, so a new parameter is sharded by being named:

==============================  ==========  =====================================================
letter                          mesh axis   when the axis does not divide the dimension
==============================  ==========  =====================================================
V vocabulary rows               `tensor`    `load_model` pads the rows; otherwise an error
F feed-forward                  `tensor`    error
H, G query and key-value heads  `tensor`    replicated: head counts are small and often odd
D width                         `fsdp`      error
E head dim, L layers            none
==============================  ==========  =====================================================

Norm scales and biases over D alone are replicated: they are small and every device needs them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xtoken_jax.errors import XTokenError

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_SPEC = PartitionSpec(("data", "fsdp"))  # [B, S] and everything else that starts with B
LOOKUP_SPEC = PartitionSpec("tensor", None)  # the embedding's rows, during the lookup
HIDDEN_SPEC = PartitionSpec(("data", "fsdp"), None, None)  # [B, S, D]

_AXIS_OF_LETTER = {"V": "tensor", "F": "tensor", "H": "tensor", "G": "tensor", "D": "fsdp"}
_MAY_REPLICATE = "HG"


def parameter_spec(
    path: Sequence[Any], shape: Sequence[int], axis_sizes: Mapping[str, int]
) -> PartitionSpec:
    """The PartitionSpec of the array at `path` of a decoder's state, or of its optimiser's.

    Args:
        path: Keys from the root; the last string in it names the parameter.
        shape: The array's.
        axis_sizes: Devices along each mesh axis, as in `mesh.shape`.

    Returns:
        One entry per dimension. Arrays whose last name carries no shape letters (a step count) are
        replicated.

    Raises:
        XTokenError: a mesh axis does not divide a dimension that must be sharded.
    """
    # An nnx.Variable puts its own "value" at the end of a path.
    names = [key for key in path if isinstance(key, str) and key != "value"]
    letters = names[-1].rpartition("_")[2] if names else ""
    if "layers" in names:
        letters = "L" + letters
    if len(letters) != len(shape) or not letters.isupper():
        return PartitionSpec()
    if letters.removeprefix("L") == "D":
        return PartitionSpec(*(None for _ in shape))
    return PartitionSpec(
        *(
            _axis_for(letter, size, axis_sizes, ".".join(names))
            for letter, size in zip(letters, shape, strict=True)
        )
    )


def _axis_for(letter: str, size: int, axis_sizes: Mapping[str, int], name: str) -> str | None:
    axis = _AXIS_OF_LETTER.get(letter)
    if axis is None or size % axis_sizes[axis] == 0:
        return axis
    if letter in _MAY_REPLICATE:
        return None
    raise XTokenError(
        f"`{name}`: mesh axis '{axis}' must divide dimension {letter}, "
        f"got {axis_sizes[axis]} devices and size {size}"
    )


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """The NamedSharding of every array of an `nnx.State` (or a pytree around one, as optax makes).

    Args:
        state: Arrays or `jax.ShapeDtypeStruct`s; only their shapes are read.
        mesh: With the axes ("data", "fsdp", "tensor").

    Returns:
        The same tree with NamedShardings as leaves, for `jax.device_put` and `out_shardings`.

    Raises:
        XTokenError: see `parameter_spec`.
    """

    def sharding(path, leaf):
        spec = parameter_spec([_key(entry) for entry in path], leaf.shape, mesh.shape)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, state)


def _key(entry: Any) -> Any:
    """The key inside one of JAX's path entries, which spell it in three ways."""
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return entry


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch's arrays [B, ...]: rows over `data` and `fsdp`."""
    return NamedSharding(mesh, BATCH_SPEC)


def parts_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch cut into parts, arrays [M, B, ...]: each part's rows as a batch's."""
    return NamedSharding(mesh, PartitionSpec(None, *BATCH_SPEC))


def constrain(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    """Pin an activation's layout under `jax.set_mesh`; no effect where no mesh is set."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(MESH_AXES) <= set(mesh.axis_names):
        return x
    return jax.lax.with_sharding_constraint(x, spec)


def padded_vocab_size(vocab_size: int, mesh: Mesh | None) -> int:
    """The smallest number of rows that the mesh's `tensor` axis divides."""
    num_shards = 1 if mesh is None else mesh.shape["tensor"]
    return math.ceil(vocab_size / num_shards) * num_shards
