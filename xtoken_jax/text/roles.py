"""What a control token is for, so that two vocabularies can be paired by purpose."""

import enum
from collections.abc import Mapping


class Role(enum.IntFlag):
    """Purposes of control tokens; one token may have several, such as a turn end that is eos."""

    NONE = 0
    BOS = enum.auto()
    EOS = enum.auto()
    PAD = enum.auto()
    UNK = enum.auto()
    TURN_START = enum.auto()
    HEADER_END = enum.auto()
    TURN_END = enum.auto()
    SYSTEM = enum.auto()
    USER = enum.auto()
    ASSISTANT = enum.auto()
    TOOL_CALL = enum.auto()
    FIM_PREFIX = enum.auto()
    FIM_MIDDLE = enum.auto()
    FIM_SUFFIX = enum.auto()


# Spelled as the families publish them. Where a family reuses a spelling for another purpose
# (`<|endoftext|>` is bos as well for Phi), the tokenizer's own declaration adds the second role.
ROLE_OF_TOKEN: Mapping[str, Role] = {
    # Llama 3
    "<|begin_of_text|>": Role.BOS,
    "<|end_of_text|>": Role.EOS,
    "<|finetune_right_pad_id|>": Role.PAD,
    "<|start_header_id|>": Role.TURN_START,
    "<|end_header_id|>": Role.HEADER_END,
    "<|eot_id|>": Role.TURN_END,
    "<|python_tag|>": Role.TOOL_CALL,
    # Llama 4
    "<|finetune_right_pad|>": Role.PAD,
    "<|header_start|>": Role.TURN_START,
    "<|header_end|>": Role.HEADER_END,
    "<|eot|>": Role.TURN_END,
    "<|python_start|>": Role.TOOL_CALL,
    # Qwen, SmolLM2 and others on ChatML; GPT-2 and its heirs
    "<|endoftext|>": Role.EOS,
    "<|im_start|>": Role.TURN_START,
    "<|im_end|>": Role.TURN_END,
    "<|im_sep|>": Role.HEADER_END,
    "<|fim_prefix|>": Role.FIM_PREFIX,
    "<|fim_middle|>": Role.FIM_MIDDLE,
    "<|fim_suffix|>": Role.FIM_SUFFIX,
    # Phi 3 and 4, gpt-oss
    "<|system|>": Role.SYSTEM,
    "<|user|>": Role.USER,
    "<|assistant|>": Role.ASSISTANT,
    "<|startoftext|>": Role.BOS,
    "<|start|>": Role.TURN_START,
    "<|message|>": Role.HEADER_END,
    "<|end|>": Role.TURN_END,
    "<|return|>": Role.EOS,
    "<|call|>": Role.TOOL_CALL,
    # Llama 1 and 2, Mistral, Gemma
    "<s>": Role.BOS,
    "</s>": Role.EOS,
    "<unk>": Role.UNK,
    "<pad>": Role.PAD,
    "[INST]": Role.USER,
    "[/INST]": Role.ASSISTANT,
    "[TOOL_CALLS]": Role.TOOL_CALL,
    "[PREFIX]": Role.FIM_PREFIX,
    "[MIDDLE]": Role.FIM_MIDDLE,
    "[SUFFIX]": Role.FIM_SUFFIX,
    "<bos>": Role.BOS,
    "<eos>": Role.EOS,
    "<start_of_turn>": Role.TURN_START,
    "<end_of_turn>": Role.TURN_END,
    # DeepSeek (full-width bars)
    "<｜begin▁of▁sentence｜>": Role.BOS,
    "<｜end▁of▁sentence｜>": Role.EOS,
    "<｜▁pad▁｜>": Role.PAD,
    "<｜User｜>": Role.USER,
    "<｜Assistant｜>": Role.ASSISTANT,
    "<｜tool▁calls▁begin｜>": Role.TOOL_CALL,
    "<｜fim▁begin｜>": Role.FIM_PREFIX,
    "<｜fim▁hole｜>": Role.FIM_MIDDLE,
    "<｜fim▁end｜>": Role.FIM_SUFFIX,
}

# Fields of tokenizer_config.json.
DECLARED_ROLES: Mapping[str, Role] = {
    "bos_token": Role.BOS,
    "eos_token": Role.EOS,
    "pad_token": Role.PAD,
    "unk_token": Role.UNK,
}


def roles_of_control_tokens(
    control: Mapping[str, int], declared: Mapping[str, str]
) -> dict[int, Role]:
    """The roles of each control token: from the table, then from the tokenizer's declarations.

    Args:
        control: Control tokens, content to id.
        declared: `bos_token`, `eos_token`, `pad_token`, `unk_token` of `tokenizer_config.json`.

    Returns:
        Id to roles; a control token of unknown purpose has `Role.NONE`.
    """
    roles = {id: ROLE_OF_TOKEN.get(content, Role.NONE) for content, id in control.items()}
    for field, role in DECLARED_ROLES.items():
        if declared.get(field) in control:
            roles[control[declared[field]]] |= role
    return roles
