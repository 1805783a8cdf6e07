"""Time and memory of loss and gradient: this project's losses, their plain forms, and two peers.

    python scripts/bench_losses.py [--json] [--pairs llama3:qwen3] [--tokens 256] [--losses p_kl]

Loss and gradient of the distillation loss alone, as the peers have it: no cross-entropy.
All contestants of a row run by turns, each in a process of its own, on the same two cores and the
same inputs: hidden states of width 64 and both unembeddings in float32, from which all of them
compute logits, loss, and the gradient for the student's hidden states and unembedding. Chunks
have one token on both sides. The peers are PyTorch's, in an environment that the first run makes
(build/peers) unless `--peer-python` names one.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers.contestants import THREADS, Contestant, peer_python, use_two_cores

from xtoken_jax.projection import build_projection, save_projection
from xtoken_jax.text import ByteTokenizer
from xtoken_jax.text.references import resolve

# Rows of a model's unembedding where it has more than its tokenizer has tokens.
_VOCAB_SIZES = {"qwen3": 151_936}
_LOSSES = ["p_kl", "p_kl_chain_rule", "h_kl", "gold", "uld"]
_FORMS = ["fused", "plain", "peer"]


def _without_slow(pythons, rows, case, loss):
    """The contestants but those that took too long over the same loss at a smaller size."""
    slow = {
        form
        for row in rows
        for form in _FORMS
        if row["loss"] == loss and row.get(form, {}).get("seconds", 0) > case["slow_seconds"]
    }
    return {form: python for form, python in pythons.items() if form not in slow}


def bench_row(
    case: dict[str, Any], pythons: dict[str, str], options: argparse.Namespace
) -> dict[str, Any]:
    """One loss at one size: every form of it, by turns."""
    contestants = {
        form: Contestant(
            python,
            "torch_losses.py" if form == "peer" else "jax_losses.py",
            {**case, "form": form},
            Path(case["projection"]).with_suffix(f".{form}.log"),
        )
        for form, python in pythons.items()
    }
    for _ in range(options.repeats):
        for contestant in contestants.values():
            contestant.repeat()
    forms = {form: contestant.close() for form, contestant in contestants.items()}
    return {
        "loss": case["loss"],
        "tokens": case["tokens"],
        **forms,
        "speedup": _over_fused(forms, "seconds"),
        "memory_share": _over_fused(forms, "peak_bytes"),
    }


def _over_fused(forms: dict[str, dict[str, Any]], name: str) -> dict[str, float]:
    """How many times the fused form's figure each other form's is."""
    fused = forms.get("fused", {}).get(name)
    return {
        form: facts[name] / fused
        for form, facts in forms.items()
        if form != "fused" and fused and name in facts
    }


def bench_pair(pair: str, options: argparse.Namespace, pythons: dict[str, str]) -> dict[str, Any]:
    """All losses and sizes of one pair of tokenizers."""
    names = pair.split(":")
    references = [name if "/" in name else f"asset:{name}" for name in names]
    student, teacher = (ByteTokenizer.load(reference) for reference in references)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "projection.safetensors")
        save_projection(build_projection(student, teacher), path)
        case = {
            "projection": str(path),
            "student": str(resolve(references[0], weights=False)),
            "teacher": str(resolve(references[1], weights=False)),
            "student_vocab_size": _VOCAB_SIZES.get(names[0], student.num_tokens),
            "teacher_vocab_size": _VOCAB_SIZES.get(names[1], teacher.num_tokens),
            "inputs": options.inputs,
            "width": options.width,
            "block_tokens": options.block_tokens,
            "threads": THREADS,
            "slow_seconds": options.slow_seconds,
            "limit_bytes": int(options.memory_gb * 1e9),
        }
        rows = []
        for tokens in options.tokens:
            for loss in options.losses:
                sized = {**case, "tokens": tokens, "loss": loss}
                rows.append(bench_row(sized, _without_slow(pythons, rows, case, loss), options))
                if not options.json:
                    print(_line(rows[-1]), flush=True)
    return {"pair": pair, "case": case, "rows": rows}


def _line(row: dict[str, Any]) -> str:
    cells = [f"{row['loss']:15s} {row['tokens']:5d}"]
    for form in _FORMS:
        facts = row.get(form, {"error": "not run"})
        if "error" in facts:
            cells.append(f"{form}: {facts['error'][:40]:40s}")
            continue
        times = f" {row['speedup'][form]:5.2f}x" if form in row["speedup"] else ""
        share = f" {row['memory_share'][form]:5.2f}x" if form in row["memory_share"] else ""
        cells.append(
            f"{form}: {facts['seconds']:7.3f} s{times} {facts['peak_bytes'] / 1e6:6.0f} MB{share}"
        )
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--pairs", nargs="+", default=["llama3:qwen3", "llama3:smollm2-135m"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[256, 1024, 4096])
    parser.add_argument("--losses", nargs="+", choices=_LOSSES, default=_LOSSES)
    parser.add_argument("--forms", nargs="+", choices=_FORMS, default=_FORMS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--inputs", choices=["hidden", "logits"], default="hidden")
    parser.add_argument("--width", type=int, default=64, help="of the hidden states")
    parser.add_argument("--block-tokens", type=int, default=64, help="of the fused losses")
    parser.add_argument("--memory-gb", type=float, default=12, help="most that a process may use")
    parser.add_argument(
        "--slow-seconds", type=float, default=20, help="run once and at no larger size above it"
    )
    parser.add_argument("--peer-python", help="an interpreter that has torch and trl")
    options = parser.parse_args()
    use_two_cores()
    pythons = {form: sys.executable for form in options.forms}
    if "peer" in pythons:
        pythons["peer"] = peer_python(options.peer_python)
    result = {
        "load_average": os.getloadavg()[0],
        "options": vars(options),
        "pairs": [bench_pair(pair, options, pythons) for pair in options.pairs],
    }
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
