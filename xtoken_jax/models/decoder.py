"""The decoder-only transformer, as a Flax NNX module.

The forward pass ends at the final hidden states; the unembedding is handed out apart, because the
losses walk over blocks of tokens and never build the logits of a whole batch. The layers are one
`Layer` whose parameters carry a leading axis L, and a scan runs over it, so that compile time does
not grow with depth.

Layers may differ in data (a sliding window or none, one of several rotary tables), never in
program: what differs is scanned over like the parameters.

Letters: B batch, S positions, V vocabulary rows, D width, H query heads, G key-value heads, R query
heads per key-value head, E head dim, F feed-forward, L layers; T stands for key positions.
"""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.attention import attention, attention_mask
from xtoken_jax.models.cache import Cache, put_columns
from xtoken_jax.models.rotary import layer_ropes, rotary_tables, rotate
from xtoken_jax.models.sharding import HIDDEN_SPEC, LOOKUP_SPEC, constrain

ACTIVATIONS = {"silu": jax.nn.silu, "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True)}
REMAT_POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Decoder(nnx.Module):
    """Token ids, positions and segment ids in; hidden states after the final norm out.

    Parameter names end in the letters of their shape; those under `layers` have L in front.
    Source: transformers' modeling_*.py of each family; logits agree within 1e-4 in float32.
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
        self.final_norm_D = _norm_scale(arch, (arch.hidden_size,), param_dtype)
        self.lm_head_VD = None if arch.tied else init(vocab_shape, rows=arch.vocab_size)

    @property
    def vocab_size(self) -> int:
        """Rows that belong to the model; the unembedding may have padded rows after them."""
        return self.architecture.vocab_size

    @property
    def unembedding_VD(self) -> Float[Array, "V D"]:
        """Rows whose product with a hidden state gives the logits; the embedding when tied.

        Raises:
            XTokenError: the logits are soft-capped, so no rows give them: use `logits`.
        """
        if self.architecture.logit_softcap is not None:
            raise XTokenError(
                "config.json: `final_logit_softcapping` must be None where losses make the logits, "
                f"got {self.architecture.logit_softcap}"
            )
        return self._unembedding_VD

    @property
    def _unembedding_VD(self):
        return self.embedding_VD[...] if self.lm_head_VD is None else self.lm_head_VD[...]

    def logits(self, hidden_BSD: Float[Array, "B S D"]) -> Float[Array, "B S V"]:
        """Logits in float32, soft-capped where the model does that; padded rows are there too."""
        logits_BSV = jnp.einsum(
            "BSD,VD->BSV", hidden_BSD, self._unembedding_VD, preferred_element_type=jnp.float32
        )
        softcap = self.architecture.logit_softcap
        return logits_BSV if softcap is None else softcap * jnp.tanh(logits_BSV / softcap)

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
        masks = self._masks(segment_ids_BS)
        return self._run(ids_BS, masks, self._rotary(positions_BS, segment_ids_BS))[0]

    def remember(
        self,
        ids_BS: Int[Array, "B S"],
        positions_BS: Int[Array, "B S"],
        segment_ids_BS: Int[Array, "B S"],
        *,
        num_columns: int,
    ) -> tuple[Float[Array, "B S D"], Cache]:
        """What a call gives, and the keys and values of the first S columns of `num_columns`."""
        masks = self._masks(segment_ids_BS)
        rotary = self._rotary(positions_BS, segment_ids_BS)
        hidden_BSD, columns = self._run(ids_BS, masks, rotary, keep=True)
        return hidden_BSD, Cache.of(columns, segment_ids_BS, num_columns=num_columns)

    def extend(
        self,
        ids_BS: Int[Array, "B S"],
        positions_BS: Int[Array, "B S"],
        segment_ids_BS: Int[Array, "B S"],
        cache: Cache,
        column: Int[Array, ""],
    ) -> tuple[Float[Array, "B S D"], Cache]:
        """Hidden states of the columns from `column` on, which also see those before them.

        Args:
            ids_BS: Tokens of these columns.
            positions_BS: Go on where the earlier columns end.
            segment_ids_BS: Likewise.
            cache: Holds the columns before; what it has from `column` on is replaced.
            column: The first of the S columns.
        """
        cache = cache.with_segments(segment_ids_BS, column)
        columns_S = column + jnp.arange(ids_BS.shape[1])
        masks = self._masks(cache.segment_ids_BT, columns_S=columns_S)
        rotary = self._rotary(positions_BS, segment_ids_BS)
        past = cache.keys_LBTGE, cache.values_LBTGE
        hidden_BSD, new = self._run(ids_BS, masks, rotary, past=past, column=column, keep=True)
        return hidden_BSD, cache.with_columns(new, column)

    def _masks(self, segment_ids_BT, *, columns_S=None):
        """Who sees whom, for each kind of layer."""
        windows, _ = layer_windows(self.architecture)
        mask = partial(attention_mask, segment_ids_BT, columns_S=columns_S)
        return jnp.stack([mask(window=window) for window in windows])

    def _rotary(self, positions_BS, segment_ids_BS):
        ropes, _ = layer_ropes(self.architecture)
        return rotary_tables(ropes, self.architecture.head_dim, positions_BS, segment_ids_BS)

    def _run(self, ids_BS, masks, rotary, *, past=None, column=None, keep=False) -> Any:
        """Hidden states after the final norm and, to `keep`, every layer's new keys and values."""
        _, window_kind_L = layer_windows(self.architecture)
        _, rope_kind_L = layer_ropes(self.architecture)
        graph, parameters_L = nnx.split(self.layers)

        def run_layer(hidden_BSD, of_layer):
            parameters, window_kind, rope_kind, past = of_layer
            layer = nnx.merge(graph, parameters)
            mask, angles = choose(masks, window_kind), choose(rotary, rope_kind)
            hidden_BSD, new = layer(hidden_BSD, mask, angles, past=past, column=column)
            return constrain(hidden_BSD, HIDDEN_SPEC), new if keep else None

        policy = REMAT_POLICIES[self.remat]
        if policy is not None:
            # Inside a scan the compiler cannot undo the recomputation, so no barrier is needed.
            run_layer = jax.checkpoint(run_layer, prevent_cse=False, policy=policy)
        of_layers = (parameters_L, window_kind_L, rope_kind_L, past)
        hidden_BSD, new = jax.lax.scan(run_layer, self._embed(ids_BS), of_layers)
        return normalise(self.architecture, hidden_BSD, self.final_norm_D), new

    def _embed(self, ids_BS):
        # Whole rows before the lookup: from rows cut over `fsdp`, as they are stored, the compiler
        # reaches HIDDEN_SPEC only by replicating the batch.
        embedding_VD = constrain(self.embedding_VD[...], LOOKUP_SPEC)
        hidden_BSD = jnp.take(embedding_VD, ids_BS, axis=0).astype(self.dtype)
        if self.architecture.scaled_embedding:
            # The root is rounded to `dtype` too, as it was when Gemma was trained.
            hidden_BSD *= jnp.asarray(self.architecture.hidden_size**0.5, self.dtype)
        return constrain(hidden_BSD, HIDDEN_SPEC)


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

        def norm(size: int, *, present: bool = True):
            return _norm_scale(arch, (L, size), param_dtype) if present else None

        self.attention_norm_D = norm(D)
        self.query_DHE = init((L, D, H, E))
        self.key_DGE = init((L, D, G, E))
        self.value_DGE = init((L, D, G, E))
        self.output_HED = init((L, H, E, D))
        has_qkv_bias = arch.attention_bias or arch.qkv_bias
        self.query_bias_HE = bias(has_qkv_bias, H, E)
        self.key_bias_GE = bias(has_qkv_bias, G, E)
        self.value_bias_GE = bias(has_qkv_bias, G, E)
        self.output_bias_D = bias(arch.attention_bias, D)
        self.query_norm_E = norm(E, present=arch.qk_norm)
        self.key_norm_E = norm(E, present=arch.qk_norm)
        self.attention_out_norm_D = norm(D, present=arch.sandwich_norm)
        self.ffn_norm_D = norm(D)
        self.gate_DF = init((L, D, F))
        self.up_DF = init((L, D, F))
        self.down_FD = init((L, F, D))
        self.gate_bias_F = bias(arch.mlp_bias, F)
        self.up_bias_F = bias(arch.mlp_bias, F)
        self.down_bias_D = bias(arch.mlp_bias, D)
        self.ffn_out_norm_D = norm(D, present=arch.sandwich_norm)
        self.adapters: nnx.Dict | None = nnx.data(None)  # see `lora`
        self.adapter_scale = 1.0

    def __call__(self, hidden_BSD, mask_BST, rotary, *, past=None, column=None):
        """Hidden states after this layer, and keys and values of the positions.

        The parameters must be one layer's slice. With `past`, the layer's cached keys and values,
        the positions are columns from `column` on and T are all columns; without it T is S.
        """
        normed_BSD = self._norm(hidden_BSD, self.attention_norm_D)
        attended_BSD, new = self._attend(normed_BSD, mask_BST, rotary, past, column)
        hidden_BSD = hidden_BSD + self._norm(attended_BSD, self.attention_out_norm_D)
        normed_BSD = self._norm(hidden_BSD, self.ffn_norm_D)
        return hidden_BSD + self._norm(self._feed_forward(normed_BSD), self.ffn_out_norm_D), new

    def _attend(self, x_BSD, mask_BST, rotary, past, column):
        arch = self.architecture
        query_BSHE = self._linear("BSD,DHE->BSHE", x_BSD, "query_DHE", self.query_bias_HE)
        key_BSGE = self._linear("BSD,DGE->BSGE", x_BSD, "key_DGE", self.key_bias_GE)
        value_BSGE = self._linear("BSD,DGE->BSGE", x_BSD, "value_DGE", self.value_bias_GE)
        query_BSHE = rotate(self._norm(query_BSHE, self.query_norm_E), *rotary)
        key_BSGE = rotate(self._norm(key_BSGE, self.key_norm_E), *rotary)
        new = (key_BSGE, value_BSGE)
        key_BTGE, value_BTGE = new if past is None else put_columns(past, new, column, axis=1)
        mixed_BSHE = attention(
            query_BSHE,
            key_BTGE,
            value_BTGE,
            mask_BST,
            scale=(arch.query_pre_attn_scalar or arch.head_dim) ** -0.5,
            softcap=arch.attention_softcap,
            causal=past is None,
        )
        return self._linear("BSHE,HED->BSD", mixed_BSHE, "output_HED", self.output_bias_D), new

    def _feed_forward(self, x_BSD):
        gate_BSF = self._linear("BSD,DF->BSF", x_BSD, "gate_DF", self.gate_bias_F)
        up_BSF = self._linear("BSD,DF->BSF", x_BSD, "up_DF", self.up_bias_F)
        inner_BSF = ACTIVATIONS[self.architecture.activation](gate_BSF) * up_BSF
        return self._linear("BSF,FD->BSD", inner_BSF, "down_FD", self.down_bias_D)

    def _linear(self, equation, x, name, bias):
        y = jnp.einsum(equation, x, getattr(self, name)[...].astype(self.dtype))
        if self.adapters is not None and name in self.adapters:
            y = y + self._low_rank(equation, x, self.adapters[name])
        return y if bias is None else y + bias[...].astype(self.dtype)[None, None]

    def _low_rank(self, equation, x, adapter):
        """What an adapter adds to a matrix's product."""
        given, matrix, result = re.split(",|->", equation)
        inputs = "".join(letter for letter in matrix if letter not in result)
        down, up = (parameter[...].astype(self.dtype) for parameter in adapter.values())
        thin_BSR = jnp.einsum(f"{given},{inputs}R->BSR", x, down)
        outputs = matrix.removeprefix(inputs)
        return self.adapter_scale * jnp.einsum(f"BSR,R{outputs}->{result}", thin_BSR, up)

    def _norm(self, x, scale):
        """Normalise over the last axis; `x` itself where the family has no norm there."""
        return x if scale is None else normalise(self.architecture, x, scale)


def normalise(architecture: Architecture, x: Array, scale: nnx.Param) -> Array:
    """The family's norm over the last axis of `x`, with a parameter of that axis."""
    scale32 = scale[...].astype(jnp.float32)
    if architecture.zero_centred_norm:
        scale32 = 1.0 + scale32
    return rms_norm(x, scale32, eps=architecture.norm_eps)


def rms_norm(x: Float[Array, "*axes D"], scale_D: Float[Array, " D"], *, eps: float) -> Array:
    """Divide by the root mean square over D, in float32, and scale; the dtype of `x`."""
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    scale = scale_D.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
    return (x32 * jax.lax.rsqrt(mean_square + eps) * scale).astype(x.dtype)


def layer_windows(architecture: Architecture) -> tuple[tuple[int | None, ...], np.ndarray]:
    """The kinds of sliding windows that the layers have (None is none), and each layer's kind."""
    local_layers = architecture.local_layers or (False,) * architecture.num_layers
    of_layers = [architecture.window if is_local else None for is_local in local_layers]
    kinds = tuple(dict.fromkeys(of_layers))
    return kinds, np.asarray([kinds.index(window) for window in of_layers], np.int32)


def choose(stacks, kind):
    """One entry of every stack in a tree; no lookup where there is only one."""
    return jax.tree.map(lambda stack: stack[0] if len(stack) == 1 else stack[kind], stacks)


def _norm_scale(architecture: Architecture, shape: tuple[int, ...], dtype) -> nnx.Param:
    """A norm's scale at the start: one."""
    return nnx.Param(jnp.full(shape, 0.0 if architecture.zero_centred_norm else 1.0, dtype))


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
