"""Who sees whom, and the attention itself, in the form that each backend does best."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

Implementation = Literal["grouped", "xla", "cudnn"]

_MAX_CUDNN_HEAD_DIM = 128  # 256 on Hopper and later, which is not asked for


def attention_mask(
    segment_ids_BT: Int[Array, "B T"],
    *,
    window: int | None = None,
    columns_S: Int[Array, " S"] | None = None,
) -> Bool[Array, "B S T"]:
    """True where a position may look: not after itself, and within its own segment.

    With a `window` also not further back than `window - 1` positions. The positions that look are
    all, or those at `columns_S`.
    """
    all_T = jnp.arange(segment_ids_BT.shape[1])
    segment_ids_BS = segment_ids_BT
    if columns_S is None:
        columns_S = all_T
    else:
        segment_ids_BS = jnp.take(segment_ids_BT, columns_S, axis=1)
    distance_ST = columns_S[:, None] - all_T[None]
    is_near_ST = distance_ST >= 0
    if window is not None:
        is_near_ST &= distance_ST < window
    return is_near_ST[None] & (segment_ids_BS[:, :, None] == segment_ids_BT[:, None, :])


def attention(
    query_BSHE: Float[Array, "B S H E"],
    key_BTGE: Float[Array, "B T G E"],
    value_BTGE: Float[Array, "B T G E"],
    mask_BST: Bool[Array, "B S T"],
    *,
    scale: float,
    softcap: float | None = None,
    causal: bool = False,
    implementation: Implementation | None = None,
) -> Float[Array, "B S H E"]:
    """Dot-product attention with grouped heads; softmax in float32.

    Every row of the mask must allow at least one position.

    Args:
        query_BSHE: The H heads are G groups of R, in this order.
        key_BTGE: One head for each group.
        value_BTGE: One head for each group.
        mask_BST: True where a position may look.
        scale: Multiplies the scores.
        softcap: Scores x become c tanh(x / c) before the mask; "grouped" alone does that.
        causal: Promises that S is T and that the mask allows nothing after a position, so that an
            implementation may leave out half of the work.
        implementation: Default: see `choose_implementation`.
    """
    if implementation is None:
        implementation = choose_implementation(
            current_platform(),
            query_BSHE.dtype,
            head_dim=query_BSHE.shape[-1],
            lengths=(query_BSHE.shape[1], key_BTGE.shape[1]),
            softcap=softcap,
        )
    if implementation == "grouped":
        return _grouped_attention(
            query_BSHE, key_BTGE, value_BTGE, mask_BST, scale=scale, softcap=softcap
        )
    return jax.nn.dot_product_attention(
        query_BSHE,
        key_BTGE,
        value_BTGE,
        mask=mask_BST[:, None],
        scale=scale,
        is_causal=causal,
        implementation=implementation,
    )


def choose_implementation(
    platform: str,
    dtype: DTypeLike,
    *,
    head_dim: int,
    lengths: tuple[int, int],
    softcap: float | None = None,
) -> Implementation:
    """The form of attention for a backend.

    "cudnn" is JAX's flash attention for NVIDIA GPUs: it never holds the scores, takes the mask as a
    bias [B, 1, S, T], and wants half precision, a head dim that is a multiple of 8 and at most 128,
    and even lengths for the gradient. "grouped" is ours, for CPU and for soft caps. "xla" is JAX's
    for all else.
    """
    if platform == "cpu" or softcap is not None:
        return "grouped"
    is_half = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)
    fits = head_dim % 8 == 0 and head_dim <= _MAX_CUDNN_HEAD_DIM and not any(n % 2 for n in lengths)
    return "cudnn" if platform == "gpu" and is_half and fits else "xla"


def current_platform() -> str:
    """Of the mesh that is set, which may be of machines that are not here; else JAX's default."""
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    return jax.default_backend() if device is None else device.platform


def _grouped_attention(query_BSHE, key_BTGE, value_BTGE, mask_BST, *, scale, softcap):
    B, S, H, E = query_BSHE.shape
    T, G = key_BTGE.shape[1:3]
    R = H // G
    # The query heads of a group become rows of one matrix product per key-value head: on two CPU
    # cores the gradient takes 0.5 to 0.7 of `jax.nn.dot_product_attention`'s time (docs/models.md).
    query_BGRSE = query_BSHE.reshape(B, S, G, R, E).transpose(0, 2, 3, 1, 4)
    query_BGXE = query_BGRSE.reshape(B, G, R * S, E)
    scores_BGXT = jnp.einsum(
        "BGXE,BTGE->BGXT", query_BGXE, key_BTGE, preferred_element_type=jnp.float32
    )
    scores_BGRST = scores_BGXT.reshape(B, G, R, S, T) * scale
    if softcap is not None:
        scores_BGRST = softcap * jnp.tanh(scores_BGRST / softcap)
    scores_BGRST = jnp.where(mask_BST[:, None, None], scores_BGRST, jnp.finfo(jnp.float32).min)
    weights_BGRST = jax.nn.softmax(scores_BGRST, axis=-1).astype(value_BTGE.dtype)
    weights_BGXT = weights_BGRST.reshape(B, G, R * S, T)
    mixed_BGXE = jnp.einsum("BGXT,BTGE->BGXE", weights_BGXT, value_BTGE)
    return mixed_BGXE.reshape(B, G, R, S, E).transpose(0, 3, 1, 2, 4).reshape(B, S, H, E)
