"""Speed and memory of whole training steps, beside TRL's GOLDTrainer.

    python scripts/bench_train.py [--json] [--batch 2] [--length 256] [--repeats 5]

SmolLM2-135M teaches a copy of itself that reads Llama-3's vocabulary: all 30 layers, float32,
AdamW, GOLD's loss (the trainer's hybrid ULD) beside cross-entropy, both of weight 1. The trainer
is off-policy, in its own loop, with gradient checkpointing and without. Both read the same texts,
each as long as a row, since the trainer does not pack and ours would. Every contestant is a
process of its own on the same two cores, and takes a step by turns. Memory is the most of the
whole process that is resident in any of its steps. The first run makes the peer's environment
(build/peers).

Besides there are steps of ours by P-KL, and with cross-entropy alone.
"""

import argparse
import bisect
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from peers.contestants import THREADS, Contestant, peer_python, use_two_cores

from xtoken_jax.config import SourceConfig
from xtoken_jax.models.transplant import transplant
from xtoken_jax.projection import retokenise
from xtoken_jax.text import ByteTokenizer, resolve
from xtoken_jax.train.data import read_documents

_BUILD = Path(__file__).resolve().parent.parent / "build" / "bench_train"
_TEACHER, _VOCABULARY = "asset:smollm2-135m", "asset:llama3"
_OURS = {  # losses, and what is recomputed in the backward pass
    "ours": ("gold", "none"),
    "ours_remat": ("gold", "full"),
    "ours_p_kl": ("p_kl", "none"),
    "ours_cross_entropy": ("none", "none"),
}
_PEERS = {"trl": False, "trl_checkpointing": True}


def make_student() -> Path:
    """The transplanted student, written once."""
    directory = _BUILD / "student"
    if not (directory / "config.json").is_file():
        student, body = ByteTokenizer.load(_VOCABULARY), ByteTokenizer.load(_TEACHER)
        pieces = retokenise(student, body)
        transplant(
            resolve(_TEACHER),
            resolve(_VOCABULARY, weights=False),
            directory,
            piece_ids_N=pieces.ids_N,
            piece_offsets_V=pieces.offsets_V,
        )
    return directory


def make_texts(length: int, count: int) -> Path:
    """Word problems end to end, cut where a text fills a row on the side that has more tokens."""
    tokenizers = [ByteTokenizer.load(reference) for reference in (_VOCABULARY, _TEACHER)]
    problems = read_documents(SourceConfig(kind="gsm_symbolic", size=8 * count))
    words = "\n".join(problem.text for problem in problems).split(" ")

    def too_long(words: list[str]) -> bool:
        text = [" ".join(words)]
        return max(np.diff(t.encode(text).offsets_B)[0] for t in tokenizers) > length - 2

    texts = []
    while len(texts) < count:
        # A word has a token or more; bos and eos take the two places that are left.
        size = bisect.bisect_left(range(1, length), True, key=lambda n: too_long(words[:n]))
        texts.append(" ".join(words[:size]))
        words = words[size:]
    path = _BUILD / f"texts_{length}.jsonl"
    lines = (json.dumps({"text": text}) for text in texts)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def our_config(
    name: str, options: argparse.Namespace, student: Path, texts: Path
) -> dict[str, Any]:
    """The experiment that does what the trainer is told to."""
    kind, remat = _OURS[name]
    return {
        "run_dir": str(_BUILD / "run"),
        "student": {"model": str(student), "dtype": "float32", "remat": remat},
        "teachers": {
            "smollm2": {
                "model": _TEACHER,
                "dtype": "float32",
                "length": options.length,
                "loss": {"kind": kind},
            }
        },
        "data": {
            "train": [{"kind": "jsonl", "path": str(texts)}],
            "batch_size": options.batch,
            "student_length": options.length,
        },
        "loss": {"scaling": "fixed", "block_tokens": options.block_tokens},
        "optim": {"steps": 1000, "learning_rate": 1e-4},
    }


def start(
    name: str, options: argparse.Namespace, python: str, paths: tuple[Path, Path]
) -> Contestant:
    """Start a contestant and wait until its step is compiled."""
    student, texts = paths
    case = {"threads": THREADS, "slow_seconds": 0, "limit_bytes": int(options.memory_gb * 1e9)}
    if name in _OURS:
        script, python = "jax_training.py", sys.executable
        case["config"] = our_config(name, options, student, texts)
    else:
        script = "torch_training.py"
        case |= {"student": str(student), "teacher": str(resolve(_TEACHER)), "texts": str(texts)}
        case |= {"batch_size": options.batch, "length": options.length}
        case["checkpointing"] = _PEERS[name]
    contestant = Contestant(python, script, case, _BUILD / f"{name}.log")
    contestant.slow_seconds = float("inf")
    return contestant


def summary(facts: dict[str, Any]) -> dict[str, Any]:
    """Medians of a contestant's steps; those it took before its turns are left out."""
    if "error" in facts:
        return facts
    repeats = facts["repeats"]
    tokens = facts["tokens"][-repeats:]
    return {
        "seconds": facts["seconds"],
        "tokens": float(np.mean(tokens)),
        "tokens_per_second": float(np.mean(tokens)) / facts["seconds"],
        "resident_bytes": facts["resident_bytes"],
        "parts": {n: float(np.median(s[-repeats:])) for n, s in facts["parts"].items() if s},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--batch", type=int, default=2, help="rows")
    parser.add_argument("--length", type=int, default=256, help="tokens a row, on both sides")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--block-tokens", type=int, default=128, help="of ours")
    parser.add_argument("--memory-gb", type=float, default=20, help="most that a process may use")
    parser.add_argument("--only", nargs="+", choices=[*_OURS, *_PEERS], default=[*_OURS, *_PEERS])
    parser.add_argument("--peer-python", help="an interpreter that has torch, trl and datasets")
    options = parser.parse_args()
    use_two_cores()
    _BUILD.mkdir(parents=True, exist_ok=True)
    paths = make_student(), make_texts(options.length, 64)
    python = peer_python(options.peer_python) if set(options.only) & set(_PEERS) else ""
    contestants = {name: start(name, options, python, paths) for name in options.only}
    for _ in range(options.repeats):
        for contestant in contestants.values():
            contestant.repeat()
    found = {
        name: summary({**contestant.close(), "repeats": options.repeats})
        for name, contestant in contestants.items()
    }
    ratios = {
        f"{ours} over {peer}": {
            "speed": found[ours]["tokens_per_second"] / found[peer]["tokens_per_second"],
            "memory": found[ours]["resident_bytes"] / found[peer]["resident_bytes"],
        }
        for ours in ("ours", "ours_remat")
        for peer in _PEERS
        if all("seconds" in found.get(name, {}) for name in (ours, peer))
    }
    if options.json:
        told = {"load_average": os.getloadavg()[0], "options": vars(options)}
        print(json.dumps({**told, "contestants": found, "ratios": ratios}))
        return
    for name, facts in found.items():
        if "error" in facts:
            print(f"{name:20s} {facts['error']}")
            continue
        told = f"{facts['seconds']:7.2f} s a step {facts['tokens_per_second']:7.1f} tokens/s"
        parts = ", ".join(f"{part} {value:.2f}" for part, value in facts["parts"].items())
        print(f"{name:20s} {told} {facts['resident_bytes'] / 1e9:5.2f} GB; seconds: {parts}")
    for names, ratio in ratios.items():
        print(f"{names}: {ratio['speed']:.2f}x tokens/s, {ratio['memory']:.0%} of memory")


if __name__ == "__main__":
    main()
