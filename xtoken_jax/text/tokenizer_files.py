"""The files of a tokenizer's directory, read and checked."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from xtoken_jax.errors import XTokenError
from xtoken_jax.text.roles import DECLARED_ROLES

# What tokenizers that run as Python code keep their vocabulary in.
_SLOW_FILES = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
    "tekken.json",
    "tokenizer_config.json",
)


def find_tokenizer_json(directory: Path, reference: str) -> Path:
    """The `tokenizer.json` of a directory.

    Raises:
        XTokenError: there is none; it says whether there is another vocabulary.
    """
    path = directory / "tokenizer.json"
    if path.is_file():
        return path
    found = [name for name in _SLOW_FILES if (directory / name).is_file()]
    instead = f"only the slow tokenizer's {', '.join(found)}" if found else "no other vocabulary"
    raise XTokenError(
        f"`{reference}` must be a fast tokenizer, but has no tokenizer.json, {instead}; "
        "transformers' AutoTokenizer.from_pretrained(...).save_pretrained writes one"
    )


def read_tokenizer(serialised: str) -> tuple[Tokenizer, dict[str, Any]]:
    """Build the tokenizer of a `tokenizer.json`, and parse the file.

    Raises:
        XTokenError: it is no such file, or holds no tokens.
    """
    try:
        tokenizer = Tokenizer.from_str(serialised)
        parsed = json.loads(serialised)
    except Exception as error:  # the Rust library raises bare Exception
        raise XTokenError(
            f"must be a tokenizer.json that the tokenizers library reads: {error}"
        ) from error
    if not parsed["model"].get("vocab"):
        raise XTokenError("must have a vocabulary, but `model.vocab` is empty")
    # The oldest files leave it to the reader to guess the type.
    parsed["model"].setdefault("type", type(tokenizer.model).__name__)
    return tokenizer, parsed


def declared_tokens(directory: Path) -> dict[str, str]:
    """The `bos_token`, `eos_token`, `pad_token` and `unk_token` that a directory declares.

    Raises:
        XTokenError: `tokenizer_config.json` or the older `special_tokens_map.json` is broken.
    """
    declared = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = directory / name
        if not path.is_file():
            continue
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            for field in DECLARED_ROLES.keys() & fields.keys():
                value = fields[field]
                content = value["content"] if isinstance(value, dict) else value
                if content:
                    declared[field] = str(content)
        except (ValueError, KeyError, AttributeError) as error:
            raise XTokenError(f"{path} must be a JSON object of settings: {error}") from error
    return declared
