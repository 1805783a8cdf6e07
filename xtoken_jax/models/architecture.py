"""The numbers that decide a decoder's maths, read from a Hugging Face `config.json`.

Every field of a config falls in one of three groups: those read into `Architecture`, those that the
decoder supports at one value only (`_SUPPORTED_VALUES`), and those that cannot change a forward
pass (`_HARMLESS`). A field in none of the groups stops the load by name, because a field that is
ignored in silence is a model that is wrong in silence.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from xtoken_jax.errors import XTokenError

_READ = frozenset(
    {
        "model_type",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "attention_bias",
        "mlp_bias",
        "tie_word_embeddings",
        "rms_norm_eps",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "max_position_embeddings",
        "initializer_range",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    }
)

_REQUIRED_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)

_SUPPORTED_VALUES: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "pretraining_tp": (1, None),  # >1 only changes the order of summation, but on purpose
    "attention_dropout": (0.0, None),
    "partial_rotary_factor": (1.0, None),
    "rope_interleaved": (False, None),  # SmolLM2 writes it; True pairs neighbouring dimensions
    "sliding_window": (None,),
    "layer_types": (None,),
    "quantization_config": (None,),
    "is_decoder": (True, None),
    "is_encoder_decoder": (False, None),
    "is_causal": (True, None),
    "add_cross_attention": (False, None),
}

_HARMLESS = frozenset(
    {
        # where the file comes from
        "_name_or_path",
        "architectures",
        "transformers_version",
        "transformers.js_config",
        "is_llama_config",
        # how the weights are stored and what the forward pass returns
        "torch_dtype",
        "dtype",
        "use_cache",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
        "chunk_size_feed_forward",
        # heads other than the language-model head
        "id2label",
        "label2id",
        "problem_type",
    }
)

_LLAMA3_FACTORS = (
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
)


@dataclasses.dataclass(frozen=True)
class Llama3Rope:
    """Llama-3.1's stretching of the slow rotary frequencies to a longer context.

    Source: transformers `modeling_rope_utils._compute_llama3_parameters`.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape and switches of a llama-family decoder; hashable, so static under jit.

    Source: the fields of transformers' `LlamaConfig`, with its defaults.
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
    mlp_bias: bool = False
    tied: bool = False
    norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    llama3_rope: Llama3Rope | None = None
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
        if self.head_dim % 2:
            raise XTokenError(f"`head_dim` must be even for rotary positions, got {self.head_dim}")

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "Architecture":
        """Read the content of a `config.json`, in the spelling of transformers 4 or 5.

        Raises:
            XTokenError: a field is missing, unknown, or has a value the decoder does not compute;
                all such fields are named in one message.
        """
        _check_fields(config)
        hidden_size, num_heads = config["hidden_size"], config["num_attention_heads"]
        theta, llama3_rope = _read_rope(config)
        optional = {field: config[key] for key, field in _OPTIONAL_FIELDS.items() if key in config}
        eos = optional.get("eos_token_id")
        if isinstance(eos, list):
            optional["eos_token_id"] = tuple(eos)
        return cls(
            vocab_size=config["vocab_size"],
            hidden_size=hidden_size,
            ffn_size=config["intermediate_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=num_heads,
            num_kv_heads=config.get("num_key_value_heads") or num_heads,
            head_dim=config.get("head_dim") or hidden_size // num_heads,
            rope_theta=theta,
            llama3_rope=llama3_rope,
            **optional,
        )

    def to_hf(self) -> dict[str, Any]:
        """The content of a `config.json` that transformers (version 5) loads."""
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": self.rope_theta}
        if self.llama3_rope is not None:
            rope |= {"rope_type": "llama3", **dataclasses.asdict(self.llama3_rope)}
        optional = {key: getattr(self, field) for key, field in _OPTIONAL_FIELDS.items()}
        if isinstance(self.eos_token_id, tuple):
            optional["eos_token_id"] = list(self.eos_token_id)
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.ffn_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rope_parameters": rope,
            **optional,
        }

    def with_layers(self, num_layers: int) -> "Architecture":
        """The same architecture with another depth."""
        return dataclasses.replace(self, num_layers=num_layers)


# config.json's name -> ours, for fields with a default.
_OPTIONAL_FIELDS = {
    "attention_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
    "tie_word_embeddings": "tied",
    "rms_norm_eps": "norm_eps",
    "max_position_embeddings": "max_position_embeddings",
    "initializer_range": "initializer_range",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "pad_token_id",
}


def _check_fields(config: Mapping[str, Any]) -> None:
    """Raise one XTokenError that names every field the decoder cannot honour."""
    model_type = config.get("model_type")
    if model_type != "llama":
        raise XTokenError(f"config.json: `model_type` must be 'llama', got {model_type!r}")
    complaints = [
        f"`{name}` must be a positive integer, got {config.get(name)!r}"
        for name in _REQUIRED_SIZES
        if not isinstance(config.get(name), int) or config[name] < 1
    ]
    for name, value in config.items():
        if name in _SUPPORTED_VALUES:
            allowed = _SUPPORTED_VALUES[name]
            if value not in allowed:
                complaints.append(f"`{name}` must be {allowed[0]!r}, got {value!r}")
        elif name not in _READ and name not in _HARMLESS:
            complaints.append(f"`{name}` is not known and may change the maths, got {value!r}")
    if complaints:
        raise XTokenError("config.json: " + "; ".join(complaints))


def _read_rope(config: Mapping[str, Any]) -> tuple[float, Llama3Rope | None]:
    """Base and scaling of the rotary positions, from either spelling."""
    field, rope = _rope_section(config)
    theta = float(rope.pop("rope_theta", None) or config.get("rope_theta") or 10_000.0)
    kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    if rope.pop("partial_rotary_factor", 1.0) not in _SUPPORTED_VALUES["partial_rotary_factor"]:
        raise XTokenError(f"config.json: `{field}.partial_rotary_factor` must be 1.0")
    if kind not in ("default", "llama3"):
        raise XTokenError(
            f"config.json: `{field}.rope_type` must be 'default' or 'llama3', got {kind!r}"
        )
    wanted = _LLAMA3_FACTORS if kind == "llama3" else ()
    if kind == "llama3":
        rope.setdefault(
            "original_max_position_embeddings", config.get("max_position_embeddings", 2048)
        )
    if set(rope) != set(wanted):
        raise XTokenError(
            f"config.json: `{field}` of type {kind!r} must have the keys {sorted(wanted)}, "
            f"got {sorted(rope)}"
        )
    return theta, Llama3Rope(**rope) if kind == "llama3" else None


def _rope_section(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and copy of the rope section: version 5's `rope_parameters` or 4's `rope_scaling`."""
    old, new = config.get("rope_scaling"), config.get("rope_parameters")
    if old and new and old != new:
        raise XTokenError(
            f"config.json: `rope_scaling` and `rope_parameters` must agree, got {old!r} and {new!r}"
        )
    field = "rope_parameters" if new else "rope_scaling"
    return field, dict(new or old or {})
