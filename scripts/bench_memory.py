"""Temporary memory of loss and gradient as XLA plans it, without running anything.

    python scripts/bench_memory.py [--json]

Llama-3 from Qwen3, hidden states of width 64: the fused losses at 1,024 and 4,096 tokens, and their
plain forms on whole arrays at 4,096.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import jax
import jax.numpy as jnp
from jax_losses import FORMS, tables_of

from xtoken_jax.projection import build_projection, save_projection
from xtoken_jax.text import ByteTokenizer

_CASE = {
    "student_vocab_size": 128_256,
    "teacher_vocab_size": 151_936,
    "inputs": "hidden",
    "width": 64,
    "block_tokens": 64,
}
_SIZES = [("fused", 1024), ("fused", 4096), ("plain", 4096)]


def temporary_bytes(case: dict) -> int:
    """What the compiled loss with its gradient needs beside its inputs and outputs."""
    form, width = FORMS[case["form"], "hidden"], case["width"]

    def side(rows):
        shapes = (case["tokens"], width), (rows, width)
        return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    function = jax.value_and_grad(lambda *inputs: form(case, *inputs))
    inputs = side(case["student_vocab_size"]), side(case["teacher_vocab_size"]), tables_of(case)
    compiled = jax.jit(function).lower(*inputs).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory, "projection.safetensors"))
        tokenizers = [ByteTokenizer.load(f"asset:{name}") for name in ("llama3", "qwen3")]
        save_projection(build_projection(*tokenizers), path)
        for loss in ("p_kl", "h_kl"):
            for form, tokens in _SIZES:
                row = {"loss": loss, "form": form, "tokens": tokens}
                row["temporary_bytes"] = temporary_bytes(_CASE | row | {"projection": path})
                rows.append(row)
                if not options.json:
                    print(f"{loss} {form} {tokens}: {row['temporary_bytes'] / 1e6:,.0f} MB")
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
