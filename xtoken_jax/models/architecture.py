"""The numbers that decide a decoder's maths, read from a Hugging Face `config.json`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.hf_config import read_fields, text_config, write_fields
from xtoken_jax.models.rope_config import PLAIN_ROPE, LongRope, Rope


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape and switches of a decoder of any family; hashable, so static under jit.

    Attributes:
        attention_bias: Biases of the query, key, value and output projections.
        qkv_bias: Biases of the first three alone.
        qk_norm: Queries and keys are normalised over the head dim before they are rotated.
        sandwich_norm: Attention and feed-forward have a norm behind them too.
        zero_centred_norm: Norms multiply by 1 + scale.
        scaled_embedding: Embedding rows are multiplied by the root of the width.
        query_pre_attn_scalar: Scores are divided by its root; None for the head dim.
        attention_softcap: Scores x become c tanh(x / c).
        logit_softcap: Logits x become c tanh(x / c).
        rope: Rotary positions; those of the layers that are not local where `local_rope` is set.
        local_rope: Rotary positions of the local layers.
        window: A local layer's positions see themselves and `window - 1` before them.
        local_layers: Which layers are local; empty for none.
        rotary_layers: Which layers have rotary positions; empty for all.

    Source: the fields of transformers' configs, with its defaults.
    """

    vocab_size: int
    hidden_size: int
    ffn_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    model_type: str = "llama"
    attention_bias: bool = False
    qkv_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False
    qk_norm: bool = False
    sandwich_norm: bool = False
    zero_centred_norm: bool = False
    scaled_embedding: bool = False
    activation: Literal["silu", "gelu_pytorch_tanh"] = "silu"
    norm_eps: float = 1e-6
    query_pre_attn_scalar: int | float | None = None  # an integer in config.json
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    rope: Rope = PLAIN_ROPE
    local_rope: Rope | None = None
    window: int | None = None
    local_layers: tuple[bool, ...] = ()
    rotary_layers: tuple[bool, ...] = ()
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    bos_token_id: int | None = 1
    eos_token_id: int | tuple[int, ...] | None = 2
    pad_token_id: int | None = None

    def __post_init__(self):
        sizes = ("vocab_size", "hidden_size", "ffn_size", "num_layers", "num_heads", "head_dim")
        for name in (*sizes, "num_kv_heads"):
            if getattr(self, name) < 1:
                raise XTokenError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise XTokenError(
                f"`num_attention_heads` must be a multiple of `num_key_value_heads`, "
                f"got {self.num_heads} and {self.num_kv_heads}"
            )
        for name in ("local_layers", "rotary_layers"):
            if len(getattr(self, name)) not in (0, self.num_layers):
                raise XTokenError(
                    f"`{name}` must be empty or have {self.num_layers} entries, "
                    f"got {len(getattr(self, name))}"
                )
        self._check_rope()

    def _check_rope(self) -> None:
        rotary_dim = self.rope.rotary_dim(self.head_dim)
        if rotary_dim % 2 or not rotary_dim:
            whole = "" if rotary_dim == self.head_dim else f", of which {rotary_dim} rotate"
            raise XTokenError(
                f"`head_dim` must be even for rotary positions, got {self.head_dim}{whole}"
            )
        scaling = self.rope.scaling
        for name in ("short_factor", "long_factor") if isinstance(scaling, LongRope) else ():
            if len(getattr(scaling, name)) != rotary_dim // 2:
                raise XTokenError(
                    f"config.json: `{name}` must have {rotary_dim // 2} numbers, "
                    f"got {len(getattr(scaling, name))}"
                )

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "Architecture":
        """Read the content of a `config.json`, in the spelling of transformers 4 or 5.

        Raises:
            XTokenError: a field is missing, unknown, or has a value the decoder does not compute;
                all such fields are named in one message.
        """
        return cls(**read_fields(text_config(config)))

    def to_hf(self) -> dict[str, Any]:
        """The content of a `config.json` that transformers (version 5) loads."""
        return write_fields(self)

    def with_layers(self, layers: Sequence[int]) -> "Architecture":
        """The same architecture with these of its layers, in this order."""

        def chosen(flags: tuple[bool, ...]) -> tuple[bool, ...]:
            return tuple(flags[layer] for layer in layers) if flags else ()

        local_layers, rotary_layers = chosen(self.local_layers), chosen(self.rotary_layers)
        return dataclasses.replace(
            self,
            num_layers=len(layers),
            local_layers=local_layers if any(local_layers) else (),
            window=self.window if any(local_layers) else None,
            rotary_layers=() if all(rotary_layers) else rotary_layers,
        )
