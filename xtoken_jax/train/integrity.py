"""Whether a checkpoint is what was saved: sizes of its files, and a checksum of its arrays.

Orbax notices a file that is gone or cut short, though only while it reads, but not a bit that
flipped. Sizes cost nothing and are looked at before anything is read; the checksum is taken on the
devices, so that no file is read twice.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from xtoken_jax.files import replaced_file

_SIZES = "files.json"


def record_sizes(checkpoint: Path) -> None:
    """Write the sizes of a finished checkpoint's files beside them."""
    with replaced_file(checkpoint / _SIZES) as temporary:
        temporary.write_text(json.dumps(_sizes(checkpoint), indent=1), encoding="utf-8")


def size_complaint(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files; None also where their sizes were never recorded.

    A kill between a checkpoint's last file and the record of sizes leaves it without.
    """
    path = checkpoint / _SIZES
    if not path.is_file():
        return None
    try:
        recorded = dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        return f"{_SIZES} must be JSON, got: {error}"
    found = _sizes(checkpoint)
    for name, size in recorded.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != size:
            return f"{name} must have {size} bytes, got {found[name]}"
    return None


def _sizes(checkpoint: Path) -> dict[str, int]:
    return {
        str(path.relative_to(checkpoint)): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.name != _SIZES
    }


@jax.jit
def checksum(tree: Any) -> UInt32[Array, ""]:
    """Sum of the arrays' bits modulo 2**32, each array with a weight of its own.

    Any one value that changes changes it. The same on every mesh, since zeros that pad an array
    add nothing.
    """
    total = jnp.uint32(0)
    for index, leaf in enumerate(jax.tree.leaves(tree)):
        total += jnp.uint32(2 * index + 1) * jnp.sum(_words(leaf), dtype=jnp.uint32)
    return total


def _words(leaf: jax.Array) -> jax.Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf.astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}"))
    return jnp.where(leaf == 0, 0, bits).astype(jnp.uint32)  # -0.0 as 0.0
