"""Chat formats of six models, each with a small tokenizer that has the model's control tokens.

The templates are written here from the formats that the families publish: which tokens frame a
turn, what is put before the first one, what becomes of thoughts, tools and system messages.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer

from tests.tiny import tiny_tokenizer
from xtoken_jax.data import TODAY, ChatTemplate
from xtoken_jax.text import ByteTokenizer

# ChatML; without a system message it brings its own (HuggingFaceTB/SmolLM2-135M-Instruct).
SMOLLM2 = r"""
{%- macro turn(role, content) -%}
{{ '<|im_start|>' + role + '\n' + content + '<|im_end|>\n' }}
{%- endmacro -%}
{%- if messages[0].role != 'system' -%}
{{ turn('system', 'You are a helpful AI assistant named SmolLM, trained by Hugging Face') }}
{%- endif -%}
{%- for message in messages -%}{{ turn(message.role, message.content) }}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""

# ChatML; the last answer has a block of thoughts, those before the last question have none; tools
# are listed in the system turn, their answers stand in a user's turn (Qwen/Qwen3-4B).
QWEN3 = r"""
{%- macro tool_list() -%}
{{ '# Tools\n\nYou may call one or more functions to assist with the user query.\n<tools>' }}
{%- for tool in tools %}{{ '\n' + tool | tojson }}{% endfor -%}
{{ '\n</tools>' }}
{%- endmacro -%}
{%- set has_system = messages[0].role == 'system' -%}
{%- if has_system or tools -%}
{{ '<|im_start|>system\n' }}
{%- if has_system %}{{ messages[0].content }}{% endif -%}
{%- if has_system and tools %}{{ '\n\n' }}{% endif -%}
{%- if tools %}{{ tool_list() }}{% endif -%}
{{ '<|im_end|>\n' }}
{%- endif -%}
{%- set last = namespace(question=0) -%}
{%- for message in messages -%}
{%- if message.role == 'user' %}{% set last.question = loop.index0 %}{% endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- set content = message.content or '' -%}
{%- if message.role == 'user' -%}
{{ '<|im_start|>user\n' + content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' -%}
{%- set thoughts = message.reasoning_content or '' -%}
{%- if not thoughts and '</think>' in content -%}
{%- set thoughts = content.split('</think>')[0].split('<think>')[-1].strip('\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\n') -%}
{%- endif -%}
{{ '<|im_start|>assistant\n' }}
{%- if loop.index0 > last.question and (loop.last or thoughts) -%}
{{ '<think>\n' + thoughts.strip('\n') + '\n</think>\n\n' }}
{%- endif -%}
{{ content }}
{%- for call in message.tool_calls or [] -%}
{%- if content or not loop.first %}{{ '\n' }}{% endif -%}
{{ '<tool_call>\n' + {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}
{{- '\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>\n' }}
{%- elif message.role == 'tool' -%}
{%- if messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif -%}
{{ '\n<tool_response>\n' + content + '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif -%}
{%- endif -%}
"""

# Begins with its bos and a dated system turn, trims contents, names tools `ipython` and quotes what
# they answer (meta-llama/Llama-3.2-1B-Instruct).
LLAMA3 = r"""
{%- macro header(role) -%}
{{ '<|start_header_id|>' + role + '<|end_header_id|>\n\n' }}
{%- endmacro -%}
{{ bos_token + header('system') }}
{{- 'Cutting Knowledge Date: December 2023\n' }}
{{- 'Today Date: ' + (date_string or strftime_now('%d %b %Y')) + '\n\n' }}
{%- set has_system = messages[0].role == 'system' -%}
{%- if has_system %}{{ messages[0].content | trim }}{% endif -%}
{{ '<|eot_id|>' }}
{%- for message in messages[(1 if has_system else 0):] -%}
{%- if message.tool_calls -%}
{%- set call = message.tool_calls[0].function -%}
{{ header('assistant') + {'name': call.name, 'parameters': call.arguments} | tojson }}
{{- '<|eot_id|>' }}
{%- elif message.role == 'tool' -%}
{{ header('ipython') + message.content | tojson + '<|eot_id|>' }}
{%- else -%}
{{ header(message.role) + message.content | trim + '<|eot_id|>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ header('assistant') }}{% endif -%}
"""

# The system message goes before the first user's; `model` is the assistant; turns must alternate
# (google/gemma-3-1b-it).
GEMMA3 = r"""
{%- set has_system = messages[0].role == 'system' -%}
{%- set turns = messages[1:] if has_system else messages -%}
{{ bos_token }}
{%- for message in turns -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}
{%- if loop.first and has_system %}{{ messages[0].content + '\n\n' }}{% endif -%}
{{ message.content | trim + '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif -%}
"""

# ChatML on one line, with a token behind the role; knows no tools (microsoft/phi-4).
PHI4 = r"""
{%- macro header(role) -%}{{ '<|im_start|>' + role + '<|im_sep|>' }}{%- endmacro -%}
{%- for message in messages if message.role in ['system', 'user', 'assistant'] -%}
{{ header(message.role) + message.content + '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ header('assistant') }}{% endif -%}
"""

# A token for each role, and the eos behind the last turn (microsoft/Phi-4-mini-instruct).
PHI4_MINI = r"""
{%- for message in messages -%}
{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}
{%- endfor -%}
{{ '<|assistant|>' if add_generation_prompt else eos_token }}
"""

# What no family above has: no place for a system message (as Gemma 2 had none).
NO_SYSTEM = r"""
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif -%}
""" + GEMMA3.lstrip("\n")

_CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
_LLAMA = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>")

# Template, control tokens, bos, eos, and whether numbers are packed.
FAMILIES = {
    "smollm2": (SMOLLM2, _CHATML, None, "<|im_end|>", False),
    "qwen3": (QWEN3, _CHATML, None, "<|im_end|>", False),
    "llama3": (LLAMA3, (*_LLAMA, "<|eot_id|>"), "<|begin_of_text|>", "<|eot_id|>", True),
    "gemma3": (GEMMA3, _GEMMA, "<bos>", "<eos>", False),
    "phi4": (PHI4, (*_CHATML, "<|im_sep|>"), "<|endoftext|>", "<|im_end|>", True),
    "phi4_mini": (
        PHI4_MINI,
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        None,
        "<|endoftext|>",
        False,
    ),
    "no_system": (NO_SYSTEM, _GEMMA, "<bos>", "<eos>", False),
}


def write_side(directory: Path, family: str) -> Path:
    """A small tokenizer of a family with its template, as a directory."""
    template, control, bos, eos, packs = FAMILIES[family]
    path = tiny_tokenizer(directory, packs_digits=packs)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.add_special_tokens(list(control))
    if family == "qwen3":  # plain tokens there, as in the real one
        tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
    tokenizer.save(str(path / "tokenizer.json"))
    declared = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos}
    if bos is not None:
        declared["bos_token"] = bos
    config = json.dumps({**declared, "chat_template": template.strip("\n")})
    (path / "tokenizer_config.json").write_text(config)
    return path


def load_side(directory: Path, *, today=TODAY, **arguments) -> tuple[ByteTokenizer, ChatTemplate]:
    """The tokenizer and the template of a directory."""
    return ByteTokenizer.load(directory), ChatTemplate.load(
        directory, arguments=arguments, today=today
    )
