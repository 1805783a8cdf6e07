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
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from xtoken_jax.projection import build_projection, save_projection
from xtoken_jax.text import ByteTokenizer
from xtoken_jax.text.references import resolve

_HERE = Path(__file__).resolve().parent
_PEERS = _HERE.parent / "build" / "peers"
_PEER_PACKAGES = ["torch==2.13.0", "trl==1.16.0", "transformers==5.23.0", "safetensors"]
_THREADS = 2
# Rows of a model's unembedding where it has more than its tokenizer has tokens.
_VOCAB_SIZES = {"qwen3": 151_936}
_LOSSES = ["p_kl", "p_kl_chain_rule", "h_kl", "gold", "uld"]
_FORMS = ["fused", "plain", "peer"]


class Contestant:
    """A process that runs one loss when told to."""

    def __init__(self, python: str, case: dict[str, Any], log: Path) -> None:
        script = "torch_losses.py" if case["form"] == "peer" else "jax_losses.py"
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [python, str(_HERE / "peers" / script), json.dumps(case)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.slow_seconds = case["slow_seconds"]
        self.seconds: list[float] = []
        self.facts = self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        last = (self.log.read_text().strip().splitlines() or ["no word"])[-1]
        return {"error": f"ended with {self.process.wait()}: {last[:200]}"}

    def repeat(self) -> None:
        """Run once more, unless it failed or is slow: then its first run counts."""
        if "error" in self.facts:
            return
        if self.facts["first_seconds"] > self.slow_seconds:
            self.seconds = [self.facts["first_seconds"]]
            return
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        self.seconds.append(self._answer()["seconds"])

    def close(self) -> dict[str, Any]:
        """End the process; what is known of the contestant."""
        self.process.communicate()
        if self.seconds:
            self.facts["seconds"] = statistics.median(self.seconds)
            self.facts["least_seconds"] = min(self.seconds)
        return self.facts


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
            python, {**case, "form": form}, Path(case["projection"]).with_suffix(f".{form}.log")
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
            "threads": _THREADS,
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


def peer_python(given: str | None) -> str:
    """The interpreter that has the peers; installs them into build/peers where needed."""
    if given:
        return given
    python, done = _PEERS / "bin" / "python", _PEERS / "installed.txt"
    wanted = "\n".join(_PEER_PACKAGES)
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(_PEERS)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run(pip + _PEER_PACKAGES, check=True, stdout=sys.stderr)
        done.write_text(wanted)
    return str(python)


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
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_THREADS])
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "JAX_PLATFORMS": "cpu"}
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
