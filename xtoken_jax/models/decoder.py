"""The decoder-only transformer, as a Flax NNX module.

The forward pass ends at the final hidden states; the unembedding is handed out apart, because the
losses walk over blocks of tokens and never build the logits of a whole batch. The layers are one
`Layer` whose parameters carry a leading axis L, and a scan runs over it, so that compile time does
not grow with depth.

Letters: B batch, S positions, V vocabulary rows, D width, H query heads, G key-value heads, R query
heads per key-value head, E head dim, F feed-forward, L layers; T stands for key positions.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.sharding import HIDDEN_SPEC, LOOKUP_SPEC, constrain

REMAT_POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Decoder(nnx.Module):
    """Token ids, positions and segment ids in; hidden states after the final norm out.

    Parameter names end in the letters of their shape; those under `layers` have L in front.
    Source: transformers' `modeling_llama.py`; logits agree within 1e-4 in float32.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool | str = False,
        padded_vocab_size: int | None = None,
    ):
        """Draw random parameters (normal, `initializer_range`); padded rows are zero.

        Args:
            architecture: Shape and switches.
            rngs: Stream `params` is used.
            dtype: Of activations and matrix products; norms, softmax and rotary stay float32.
            param_dtype: Of the stored parameters.
            remat: What the backward pass of a layer recomputes: "none" (or False) nothing, "full"
                (or True) everything, "dots" all but the matrix products with parameters.
            padded_vocab_size: Rows of the embedding, at least `architecture.vocab_size`.

        Raises:
            ValueError: `remat` or `padded_vocab_size` is out of range.
        """
        arch = architecture
        num_rows = arch.vocab_size if padded_vocab_size is None else padded_vocab_size
        if num_rows < arch.vocab_size:
            raise ValueError(
                f"`padded_vocab_size` must be at least {arch.vocab_size}, got {num_rows}"
            )
        self.architecture = arch
        self.dtype = jnp.dtype(dtype)
        self.remat = _remat_name(remat)
        init = partial(_normal, rngs, std=arch.initializer_range, dtype=param_dtype)
        vocab_shape = (num_rows, arch.hidden_size)
        self.embedding_VD = init(vocab_shape, rows=arch.vocab_size)
        self.layers = Layer(arch, init=init, dtype=dtype, param_dtype=param_dtype)
        self.final_norm_D = nnx.Param(jnp.ones((arch.hidden_size,), param_dtype))
        self.lm_head_VD = None if arch.tied else init(vocab_shape, rows=arch.vocab_size)

    @property
    def vocab_size(self) -> int:
        """Rows that belong to the model; the unembedding may have padded rows after them."""
        return self.architecture.vocab_size

    @property
    def unembedding_VD(self) -> Float[Array, "V D"]:
        """Rows whose product with a hidden state gives the logits; the embedding when tied."""
        return self.embedding_VD[...] if self.lm_head_VD is None else self.lm_head_VD[...]

    def __call__(
        self,
        ids_BS: Int[Array, "B S"],
        positions_BS: Int[Array, "B S"],
        segment_ids_BS: Int[Array, "B S"],
    ) -> Float[Array, "B S D"]:
        """Hidden states after the final norm, in `dtype`.

        Attention is causal in row order and stays within equal segment ids. Segment 0 is padding:
        what comes out there is finite and means nothing.
        """
        arch = self.architecture
        mask_BST = attention_mask(segment_ids_BS)
        rotary = rotary_tables(arch, positions_BS)
        # Whole rows before the lookup: from rows cut over `fsdp`, as they are stored, the compiler
        # reaches HIDDEN_SPEC only by replicating the batch.
        embedding_VD = constrain(self.embedding_VD[...], LOOKUP_SPEC)
        hidden_BSD = jnp.take(embedding_VD, ids_BS, axis=0).astype(self.dtype)
        graph, parameters_L = nnx.split(self.layers)

        def run_layer(hidden_BSD, parameters):
            layer = nnx.merge(graph, parameters)
            return constrain(layer(hidden_BSD, mask_BST, rotary), HIDDEN_SPEC), None

        policy = REMAT_POLICIES[self.remat]
        if policy is not None:
            # Inside a scan the compiler cannot undo the recomputation, so no barrier is needed.
            run_layer = jax.checkpoint(run_layer, prevent_cse=False, policy=policy)
        hidden_BSD, _ = jax.lax.scan(run_layer, constrain(hidden_BSD, HIDDEN_SPEC), parameters_L)
        return rms_norm(hidden_BSD, self.final_norm_D[...], eps=arch.norm_eps)


class Layer(nnx.Module):
    """Attention and gated feed-forward, each behind a norm and beside a residual connection."""

    def __init__(self, architecture: Architecture, *, init, dtype, param_dtype):
        """Stack the parameters of all layers along a leading axis; a call works on one slice."""
        arch = self.architecture = architecture
        self.dtype = jnp.dtype(dtype)
        L, D, F = arch.num_layers, arch.hidden_size, arch.ffn_size
        H, G, E = arch.num_heads, arch.num_kv_heads, arch.head_dim

        def bias(present: bool, *shape: int):
            return nnx.Param(jnp.zeros((L, *shape), param_dtype)) if present else None

        self.attention_norm_D = nnx.Param(jnp.ones((L, D), param_dtype))
        self.query_DHE = init((L, D, H, E))
        self.key_DGE = init((L, D, G, E))
        self.value_DGE = init((L, D, G, E))
        self.output_HED = init((L, H, E, D))
        self.query_bias_HE = bias(arch.attention_bias, H, E)
        self.key_bias_GE = bias(arch.attention_bias, G, E)
        self.value_bias_GE = bias(arch.attention_bias, G, E)
        self.output_bias_D = bias(arch.attention_bias, D)
        self.ffn_norm_D = nnx.Param(jnp.ones((L, D), param_dtype))
        self.gate_DF = init((L, D, F))
        self.up_DF = init((L, D, F))
        self.down_FD = init((L, F, D))
        self.gate_bias_F = bias(arch.mlp_bias, F)
        self.up_bias_F = bias(arch.mlp_bias, F)
        self.down_bias_D = bias(arch.mlp_bias, D)

    def __call__(self, hidden_BSD, mask_BST, rotary):
        """Hidden states after this layer; the parameters must be one layer's slice."""
        eps = self.architecture.norm_eps
        normed_BSD = rms_norm(hidden_BSD, self.attention_norm_D[...], eps=eps)
        hidden_BSD = hidden_BSD + self._attend(normed_BSD, mask_BST, rotary)
        normed_BSD = rms_norm(hidden_BSD, self.ffn_norm_D[...], eps=eps)
        return hidden_BSD + self._feed_forward(normed_BSD)

    def _attend(self, x_BSD, mask_BST, rotary):
        query_BSHE = self._linear("BSD,DHE->BSHE", x_BSD, self.query_DHE, self.query_bias_HE)
        key_BSGE = self._linear("BSD,DGE->BSGE", x_BSD, self.key_DGE, self.key_bias_GE)
        value_BSGE = self._linear("BSD,DGE->BSGE", x_BSD, self.value_DGE, self.value_bias_GE)
        query_BSHE, key_BSGE = rotate(query_BSHE, rotary), rotate(key_BSGE, rotary)
        mixed_BSHE = attention(query_BSHE, key_BSGE, value_BSGE, mask_BST)
        return self._linear("BSHE,HED->BSD", mixed_BSHE, self.output_HED, self.output_bias_D)

    def _feed_forward(self, x_BSD):
        gate_BSF = self._linear("BSD,DF->BSF", x_BSD, self.gate_DF, self.gate_bias_F)
        up_BSF = self._linear("BSD,DF->BSF", x_BSD, self.up_DF, self.up_bias_F)
        inner_BSF = jax.nn.silu(gate_BSF) * up_BSF
        return self._linear("BSF,FD->BSD", inner_BSF, self.down_FD, self.down_bias_D)

    def _linear(self, equation, x, weight, bias):
        y = jnp.einsum(equation, x, weight[...].astype(self.dtype))
        return y if bias is None else y + bias[...].astype(self.dtype)[None, None]


def rms_norm(
    x_BSD: Float[Array, "B S D"], scale_D: Float[Array, " D"], *, eps: float
) -> Float[Array, "B S D"]:
    """Divide by the root mean square over D, in float32, and scale; the dtype of `x_BSD`."""
    x32_BSD = x_BSD.astype(jnp.float32)
    mean_square_BS1 = jnp.mean(jnp.square(x32_BSD), axis=-1, keepdims=True)
    normed_BSD = x32_BSD * jax.lax.rsqrt(mean_square_BS1 + eps)
    return (normed_BSD * scale_D.astype(jnp.float32)[None, None]).astype(x_BSD.dtype)


def attention_mask(segment_ids_BS: Int[Array, "B S"]) -> Bool[Array, "B S S"]:
    """True where a position may look: not after itself, and within its own segment."""
    num_positions = segment_ids_BS.shape[1]
    causal_ST = jnp.tril(jnp.ones((num_positions, num_positions), bool))
    return causal_ST[None] & (segment_ids_BS[:, :, None] == segment_ids_BS[:, None, :])


def attention(
    query_BSHE: Float[Array, "B S H E"],
    key_BTGE: Float[Array, "B T G E"],
    value_BTGE: Float[Array, "B T G E"],
    mask_BST: Bool[Array, "B S T"],
) -> Float[Array, "B S H E"]:
    """Scaled dot-product attention with grouped heads; softmax in float32.

    Every row of the mask must allow at least one position.
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
    scores_BGRST = scores_BGXT.reshape(B, G, R, S, T) * E**-0.5
    scores_BGRST = jnp.where(mask_BST[:, None, None], scores_BGRST, jnp.finfo(jnp.float32).min)
    weights_BGRST = jax.nn.softmax(scores_BGRST, axis=-1).astype(value_BTGE.dtype)
    weights_BGXT = weights_BGRST.reshape(B, G, R * S, T)
    mixed_BGXE = jnp.einsum("BGXT,BTGE->BGXE", weights_BGXT, value_BTGE)
    return mixed_BGXE.reshape(B, G, R, S, E).transpose(0, 3, 1, 2, 4).reshape(B, S, H, E)


def rotary_tables(
    architecture: Architecture, positions_BS: Int[Array, "B S"]
) -> tuple[Float[Array, "B S half"], Float[Array, "B S half"]]:
    """Cosine and sine of position times frequency, in float32; `half` is E / 2."""
    frequencies = jnp.asarray(rotary_frequencies(architecture))
    angles = positions_BS.astype(jnp.float32)[..., None] * frequencies[None, None]
    return jnp.cos(angles), jnp.sin(angles)


def rotary_frequencies(architecture: Architecture) -> np.ndarray:
    """Radians per position of each rotated pair, shape [E / 2], float32.

    Source: RoFormer (arXiv 2104.09864); Llama-3.1's scaling from transformers
    `_compute_llama3_parameters`: slow waves are divided by `factor`, fast ones kept, and those
    between interpolated.
    """
    half = architecture.head_dim // 2
    frequencies = architecture.rope_theta ** -(np.arange(half) / half)
    scaling = architecture.llama3_rope
    if scaling is not None:
        waves_in_context = scaling.original_max_position_embeddings * frequencies / (2 * np.pi)
        span = scaling.high_freq_factor - scaling.low_freq_factor
        keep = np.clip((waves_in_context - scaling.low_freq_factor) / span, 0.0, 1.0)
        frequencies = frequencies * (keep + (1.0 - keep) / scaling.factor)
    return frequencies.astype(np.float32)


def rotate(
    x_BSHE: Float[Array, "B S H E"],
    rotary: tuple[Float[Array, "B S half"], Float[Array, "B S half"]],
) -> Float[Array, "B S H E"]:
    """Rotate dimension i against i + E/2 by the position's angle, in float32."""
    cos, sin = (table[:, :, None] for table in rotary)
    first, second = jnp.split(x_BSHE.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
    return rotated.astype(x_BSHE.dtype)


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], *, std, dtype, rows: int | None = None):
    """A normal parameter; rows from `rows` on are zero."""
    values = std * jax.random.normal(rngs.params(), shape, dtype)
    if rows is not None and rows < shape[0]:
        values = values.at[rows:].set(0)
    return nnx.Param(values)


def _remat_name(remat: bool | str) -> str:
    name = {False: "none", True: "full"}[remat] if isinstance(remat, bool) else remat
    if name not in REMAT_POLICIES:
        allowed = ", ".join(map(repr, REMAT_POLICIES))
        raise ValueError(f"`remat` must be a boolean or one of {allowed}, got {remat!r}")
    return name
