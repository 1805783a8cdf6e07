"""What every command prints with."""

import json
from typing import Any

from rich.console import Console

# What is printed holds tokens and paths, whose brackets are not rich's markup.
OUT = Console(markup=False, emoji=False, highlight=False)


def print_json(content: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(content, ensure_ascii=False))
