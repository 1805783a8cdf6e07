"""Who sees whom, and the attention itself."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def attention_mask(
    segment_ids_BS: Int[Array, "B S"], *, window: int | None = None
) -> Bool[Array, "B S S"]:
    """True where a position may look: not after itself, and within its own segment.

    With a `window` also not further back than `window - 1` positions.
    """
    num_positions = segment_ids_BS.shape[1]
    causal_ST = jnp.tril(jnp.ones((num_positions, num_positions), bool))
    if window is not None:
        causal_ST = causal_ST & ~jnp.tril(causal_ST, -window)
    return causal_ST[None] & (segment_ids_BS[:, :, None] == segment_ids_BS[:, None, :])


def attention(
    query_BSHE: Float[Array, "B S H E"],
    key_BTGE: Float[Array, "B T G E"],
    value_BTGE: Float[Array, "B T G E"],
    mask_BST: Bool[Array, "B S T"],
    *,
    scale: float,
    softcap: float | None = None,
) -> Float[Array, "B S H E"]:
    """Dot-product attention with grouped heads; softmax in float32.

    Every row of the mask must allow at least one position.

    Args:
        query_BSHE: The H heads are G groups of R, in this order.
        key_BTGE: One head for each group.
        value_BTGE: One head for each group.
        mask_BST: True where a position may look.
        scale: Multiplies the scores.
        softcap: Scores x become c tanh(x / c) before the mask.
    """
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
