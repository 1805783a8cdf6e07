"""A language model's `config.json` into the arguments of `Architecture`, and back."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.families import (
    COMMON_FIELDS,
    FAMILIES,
    HARMLESS,
    OWN_FIELDS,
    READ,
    REQUIRED_SIZES,
    SUPPORTED_VALUES,
    WINDOW_FIELDS,
)
from xtoken_jax.models.rope_config import LongRope, Rope, read_rope, rope_section

if TYPE_CHECKING:
    from xtoken_jax.models.architecture import Architecture


def is_wrapped(config: Mapping[str, Any]) -> bool:
    """Whether the language model is a part of the model: Gemma-3 with a vision tower."""
    return config.get("model_type") == "gemma3" and isinstance(config.get("text_config"), Mapping)


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's part of a config.json: all of it, but for Gemma-3 with a vision tower.

    Raises:
        XTokenError: `model_type` is not supported.
    """
    if is_wrapped(config):
        inner = dict(config["text_config"])
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if config.get(name) is not None:
                inner.setdefault(name, config[name])
        return text_config({"model_type": "gemma3_text"} | inner)
    if config.get("model_type") not in FAMILIES:
        allowed = ", ".join(map(repr, FAMILIES))
        raise XTokenError(
            f"config.json: `model_type` must be one of {allowed}, got {config.get('model_type')!r}"
        )
    return dict(config)


def read_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Architecture` from a language model's config.json.

    Raises:
        XTokenError: a field is missing, unknown, or has a value the decoder does not compute; all
            such fields are named in one message.
    """
    family = FAMILIES[config["model_type"]]
    check_fields(config)
    config = {**family.defaults, **config}
    direct = {**COMMON_FIELDS, **family.fields}
    fields = {ours: config[name] for name, ours in direct.items() if name in config}
    if isinstance(fields.get("eos_token_id"), list):
        fields["eos_token_id"] = tuple(fields["eos_token_id"])
    num_heads = config["num_attention_heads"]
    rotary_layers = _rotary_layers(config)
    window, local_layers = _window_layers(config, rotary_layers)
    rope, local_rope = _ropes(config)
    return {
        **family.switches,
        **fields,
        "model_type": config["model_type"],
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "ffn_size": config["intermediate_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": num_heads,
        "num_kv_heads": config.get("num_key_value_heads") or num_heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // num_heads,
        "rope": rope,
        "local_rope": local_rope,
        "window": window,
        "local_layers": local_layers,
        "rotary_layers": () if all(rotary_layers) else rotary_layers,
    }


def check_fields(config: Mapping[str, Any]) -> None:
    """Raise one XTokenError that names every field the decoder cannot honour."""
    model_type = config["model_type"]
    family = FAMILIES[model_type]
    complaints = [
        f"`{name}` must be a positive integer, got {value!r}"
        for name in REQUIRED_SIZES
        if not isinstance(value := config.get(name, family.defaults.get(name)), int) or value < 1
    ]
    read = READ | set(family.fields) | WINDOW_FIELDS[family.windows]
    read |= OWN_FIELDS.get(model_type, frozenset())
    supported = {**SUPPORTED_VALUES, **family.supported}
    for name, value in config.items():
        if name in read or name in HARMLESS or name in family.harmless:
            continue
        if name not in supported:
            complaints.append(f"`{name}` is not known and may change the maths, got {value!r}")
        elif value not in supported[name]:
            complaints.append(f"`{name}` must be {supported[name][0]!r}, got {value!r}")
    if complaints:
        raise XTokenError("config.json: " + "; ".join(complaints))


def _rotary_layers(config: Mapping[str, Any]) -> tuple[bool, ...]:
    """Which layers rotate queries and keys: all but some of SmolLM3's."""
    num_layers = config["num_hidden_layers"]
    if config["model_type"] != "smollm3":
        return (True,) * num_layers
    flags = config.get("no_rope_layers")  # 1 where there are rotary positions, despite its name
    if flags is None:
        interval = config["no_rope_layer_interval"]
        return tuple((layer + 1) % interval != 0 for layer in range(num_layers))
    if len(flags) < num_layers:
        raise XTokenError(
            f"config.json: `no_rope_layers` must have {num_layers} entries, got {len(flags)}"
        )
    return tuple(map(bool, flags[:num_layers]))


def _window_layers(
    config: Mapping[str, Any], rotary_layers: tuple[bool, ...]
) -> tuple[int | None, tuple[bool, ...]]:
    """The sliding window and which layers keep to it; (None, ()) where none does."""
    windows = FAMILIES[config["model_type"]].windows
    window, num_layers = config.get("sliding_window"), config["num_hidden_layers"]
    if windows == "none" or not config.get("use_sliding_window", True):
        window = None
    if windows == "every layer":
        local_layers = (window is not None,) * num_layers
    elif (types := config.get("layer_types")) is not None and windows == "layer types":
        if len(types) != num_layers or not set(types) <= {"full_attention", "sliding_attention"}:
            raise XTokenError(
                f"config.json: `layer_types` must have {num_layers} entries, each "
                f"'full_attention' or 'sliding_attention', got {types!r}"
            )
        local_layers = tuple(kind == "sliding_attention" for kind in types)
    else:
        local_layers = _default_local_layers(config, window, rotary_layers)
    if not any(local_layers):
        return None, ()
    if not isinstance(window, int) or window < 1:
        raise XTokenError(
            f"config.json: `sliding_window` must be a positive integer for its sliding layers, "
            f"got {config.get('sliding_window')!r}"
            + ("" if config.get("use_sliding_window", True) else " and no `use_sliding_window`")
        )
    return window, local_layers


def _default_local_layers(
    config: Mapping[str, Any], window: int | None, rotary_layers: tuple[bool, ...]
) -> tuple[bool, ...]:
    """What transformers takes for `layer_types` when a config.json has none."""
    if config["model_type"] == "gemma3_text":
        pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
        return tuple((layer + 1) % pattern != 0 for layer in range(config["num_hidden_layers"]))
    if window is None:
        return ()
    if config["model_type"] == "smollm3":
        return tuple(not rotary for rotary in rotary_layers)
    return tuple(i >= config["max_window_layers"] for i in range(config["num_hidden_layers"]))


def _ropes(config: Mapping[str, Any]) -> tuple[Rope, Rope | None]:
    """Rotary positions of the layers, and those of Gemma-3's local layers."""
    field, section = rope_section(config)
    theta = config.get("rope_theta") or 10_000.0
    partial = FAMILIES[config["model_type"]].partial_rotary
    if config["model_type"] != "gemma3_text":
        return read_rope(config, section, field=field, theta=theta, partial=partial), None
    local_theta = config.get("rope_local_base_freq") or 10_000.0
    theta = config.get("rope_theta") or 1_000_000.0
    if not {"full_attention", "sliding_attention"} & set(section):
        section = {"full_attention": section}  # version 4: its scaling is for the global layers
    by_kind = {
        kind: section.pop(kind, None) or {} for kind in ("full_attention", "sliding_attention")
    }
    if section:
        raise XTokenError(f"config.json: `{field}` has keys besides the layer types: {section!r}")
    return (
        read_rope(config, by_kind["full_attention"], field=field, theta=theta, partial=partial),
        read_rope(
            config, by_kind["sliding_attention"], field=field, theta=local_theta, partial=partial
        ),
    )


def write_fields(architecture: "Architecture") -> dict[str, Any]:
    """The content of a `config.json` that transformers (version 5) loads."""
    arch, family = architecture, FAMILIES[architecture.model_type]
    direct = {**COMMON_FIELDS, **family.fields}
    fields = {name: getattr(arch, ours) for name, ours in direct.items()}
    if isinstance(arch.eos_token_id, tuple):
        fields["eos_token_id"] = list(arch.eos_token_id)
    activation = "hidden_activation" if arch.model_type == "gemma3_text" else "hidden_act"
    return {
        "architectures": [family.causal_lm],
        "model_type": arch.model_type,
        "vocab_size": arch.vocab_size,
        "hidden_size": arch.hidden_size,
        "intermediate_size": arch.ffn_size,
        "num_hidden_layers": arch.num_layers,
        "num_attention_heads": arch.num_heads,
        "num_key_value_heads": arch.num_kv_heads,
        "head_dim": arch.head_dim,
        activation: arch.activation,
        "rope_parameters": _write_ropes(arch),
        **_write_layers(arch),
        **fields,
    }


def _write_ropes(arch: "Architecture") -> dict[str, Any]:
    if arch.local_rope is None:
        return arch.rope.to_hf()
    return {"full_attention": arch.rope.to_hf(), "sliding_attention": arch.local_rope.to_hf()}


def _write_layers(arch: "Architecture") -> dict[str, Any]:
    """The fields that say what differs from layer to layer."""
    family, own = FAMILIES[arch.model_type], OWN_FIELDS.get(arch.model_type, frozenset())
    fields: dict[str, Any] = {}
    if family.windows != "none":
        fields["sliding_window"] = arch.window
    if family.windows == "layer types":
        local_layers = arch.local_layers or (False,) * arch.num_layers
        kinds = ("full_attention", "sliding_attention")
        fields["layer_types"] = [kinds[is_local] for is_local in local_layers]
    if "use_sliding_window" in own:
        fields["use_sliding_window"] = arch.window is not None
    if "no_rope_layers" in own:
        rotary_layers = arch.rotary_layers or (True,) * arch.num_layers
        fields["no_rope_layers"] = [int(rotary) for rotary in rotary_layers]
    if isinstance(arch.rope.scaling, LongRope) and arch.model_type == "phi3":
        # transformers lets the field outside the section win, with a default of its own.
        name = "original_max_position_embeddings"
        fields[name] = arch.rope.scaling.original_max_position_embeddings
    return fields
