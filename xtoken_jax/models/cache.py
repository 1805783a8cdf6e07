"""Keys and values of the columns that a decoder has read, so that it reads each only once."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Cache(NamedTuple):
    """What the layers have computed of a batch's columns; T columns, of which some may be unread.

    Attributes:
        keys_LBTGE: Of every layer, rotated.
        values_LBTGE: Likewise.
        segment_ids_BT: 0 for padding and for columns that are not read yet.
    """

    keys_LBTGE: Float[Array, "L B T G E"]
    values_LBTGE: Float[Array, "L B T G E"]
    segment_ids_BT: Int[Array, "B T"]

    @classmethod
    def of(
        cls, columns: tuple[Array, Array], segment_ids_BS: Int[Array, "B S"], *, num_columns: int
    ) -> "Cache":
        """Keys and values of the first S columns, with room up to `num_columns`."""
        room = num_columns - segment_ids_BS.shape[1]

        def padded(array: Array, axis: int) -> Array:
            return jnp.pad(array, [(0, room if axis == at else 0) for at in range(array.ndim)])

        keys, values = (padded(array, 2) for array in columns)
        return cls(keys, values, padded(segment_ids_BS, 1))

    def with_segments(self, segment_ids_BS: Int[Array, "B S"], column: Int[Array, ""]) -> "Cache":
        """The columns from `column` on belong to these segments."""
        segment_ids_BT = put_columns(self.segment_ids_BT, segment_ids_BS, column, axis=1)
        return self._replace(segment_ids_BT=segment_ids_BT)

    def with_columns(self, columns: tuple[Array, Array], column: Int[Array, ""]) -> "Cache":
        """With the keys and values [L, B, S, G, E] of the columns from `column` on."""
        kept = self.keys_LBTGE, self.values_LBTGE
        keys, values = put_columns(kept, columns, column, axis=2)
        return Cache(keys, values, self.segment_ids_BT)


def put_columns(kept: Any, new: Any, column: Int[Array, ""], *, axis: int) -> Any:
    """Arrays with other, shorter ones written over them from `column` of an axis on."""

    def put(old: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), column, axis)

    return jax.tree.map(put, kept, new)
