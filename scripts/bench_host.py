"""How fast the host side is: tokenisation, alignment on both paths, and W, on real tokenizers.

    python scripts/bench_host.py [--json] [--megabytes 1] [--student asset:llama3] [--teacher ...]

Every figure is the best of several runs in this one process; rates are per token of the student's.
Texts come from what the standard library and the tokenizers hold: documentation, source, and
tokens of one script drawn at random and normalised to NFC, so that nothing is downloaded but the
two tokenizers.
"""

import argparse
import glob
import json
import os
import random
import resource
import subprocess
import sys
import sysconfig
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from xtoken_jax.align import align
from xtoken_jax.text import ByteTokenizer, Encoded

_SCRIPTS = {"chinese": "CJK UNIFIED", "arabic": "ARABIC", "hindi": "DEVANAGARI"}
_TEXT_CHARACTERS = 2000


def corpora(tokenizer: ByteTokenizer, size: int) -> dict[str, str]:
    """A text of about `size` bytes of each kind."""
    draw = random.Random(0)
    sources = sorted(glob.glob(sysconfig.get_path("stdlib") + "/*.py"))
    code = "".join(Path(path).read_text(encoding="utf-8", errors="ignore") for path in sources)
    prose = "\n\n".join(paragraph for text in topics.values() for paragraph in text.split("\n\n"))
    texts = {"prose": prose, "code": code}
    tokens = [content.decode(errors="ignore").strip() for content in tokenizer.token_bytes]
    for name, prefix in _SCRIPTS.items():
        words = [token for token in tokens if token and all(_is_of(c, prefix) for c in token)]
        joined = "" if name == "chinese" else " "
        drawn = _sentences(draw, words, joined, size)
        texts[name] = unicodedata.normalize("NFC", drawn)
        if (
            name == "hindi"
        ):  # an NFC teacher changes nearly every text, so that all take the DP path
            texts["hindi, not NFC"] = drawn
    emoji = [chr(c) for c in range(0x1F300, 0x1F700)] + ["👩‍👩‍👧", "🇯🇵", "👍🏽"]
    texts["emoji"] = _sentences(draw, emoji, "", size)
    numbers = [str(draw.randrange(10 ** draw.randrange(1, 11))) for _ in range(10_000)]
    texts["numbers"] = _sentences(draw, numbers, " ", size)
    return {name: _of_size(text, size) for name, text in texts.items()}


def _is_of(character: str, prefix: str) -> bool:
    return unicodedata.name(character, "").startswith(prefix)


def _sentences(draw: random.Random, words: list[str], joined: str, size: int) -> str:
    parts, length = [], 0
    while length < size:
        parts.append(joined.join(draw.choices(words, k=12)) + ". ")
        length += len(parts[-1].encode())
    return "".join(parts)


def _of_size(text: str, size: int) -> str:
    """The text, repeated and cut to about as many bytes."""
    repeated = text * (size // len(text.encode()) + 1)
    return repeated.encode()[:size].decode(errors="ignore")


def best(function: Callable[[], object], *, repeats: int) -> float:
    """Least wall-clock seconds of several calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


class Pair:
    """Two tokenizers."""

    def __init__(self, student: str, teacher: str) -> None:
        self.tokenizers = ByteTokenizer.load(student), ByteTokenizer.load(teacher)

    def encode(self, texts: list[str], **options: bool) -> tuple[Encoded, Encoded]:
        """The same texts on both sides."""
        student, teacher = (side.encode(texts, **options) for side in self.tokenizers)
        return student, teacher

    def seconds(self, encoded: tuple[Encoded, Encoded], *, repeats: int = 7) -> float:
        """Seconds that their alignment takes."""
        return best(lambda: align(*encoded, *self.tokenizers), repeats=repeats)


def bench_corpus(pair: Pair, text: str) -> dict[str, float]:
    """Tokenisation and alignment of a text in pieces of 2,000 characters."""
    texts = [text[i : i + _TEXT_CHARACTERS] for i in range(0, len(text), _TEXT_CHARACTERS)]
    tokenising = best(lambda: pair.encode(texts), repeats=2)
    encoded = pair.encode(texts)
    with_ends = pair.encode(texts, bos=True, eos=True)
    aligning = pair.seconds(encoded)
    tokens = len(encoded[0].ids_N)
    alignment = align(*encoded, *pair.tokenizers)
    return {
        "student_tokens": tokens,
        "teacher_tokens": len(encoded[1].ids_N),
        "chunks": len(alignment.chunks_N4),
        "dp_texts": int(alignment.by_dp_B.sum()),
        "tokenise_tokens_per_s": tokens / tokenising,
        "align_tokens_per_s": tokens / aligning,
        "align_with_bos_eos_tokens_per_s": len(with_ends[0].ids_N) / pair.seconds(with_ends),
        "align_share": aligning / (aligning + tokenising),
    }


def bench_length(pair: Pair, text: str) -> dict[str, float]:
    """Time per token of one text, and of the same 64 times as long."""
    short = pair.encode([text])
    long = [
        Encoded(np.tile(side.ids_N, 64), side.offsets_B * 64, side.prefixed_N) for side in short
    ]
    tokens = len(short[0].ids_N)
    short_seconds, long_seconds = [], []
    for _ in range(5):  # by turns, because the machine's speed drifts
        short_seconds.append(pair.seconds(short))
        long_seconds.append(pair.seconds((long[0], long[1]), repeats=1))
    per_token = min(short_seconds) / tokens, min(long_seconds) / (64 * tokens)
    return {
        "ns_1x": per_token[0] * 1e9,
        "ns_64x": per_token[1] * 1e9,
        "ratio": per_token[1] / per_token[0],
    }


def bench_dp(pair: Pair, text: str) -> dict[str, dict[str, float]]:
    """The DP path where a share of the characters was changed on the teacher's side."""
    results = {}
    for share in (0.01, 0.1, 1.0):
        other = _changed(text, share)
        as_one = pair.tokenizers[0].encode([text]), pair.tokenizers[1].encode([other])
        texts, others = (
            [whole[i : i + _TEXT_CHARACTERS] for i in range(0, len(whole), _TEXT_CHARACTERS)]
            for whole in (text, other)
        )
        count = min(len(texts), len(others))
        in_pieces = (
            pair.tokenizers[0].encode(texts[:count]),
            pair.tokenizers[1].encode(others[:count]),
        )
        results[f"{share:.0%}"] = {
            "one_text_tokens_per_s": len(as_one[0].ids_N) / pair.seconds(as_one, repeats=2),
            "pieces_tokens_per_s": len(in_pieces[0].ids_N) / pair.seconds(in_pieces, repeats=2),
        }
    return results


def _changed(text: str, share: float) -> str:
    draw = random.Random(1)
    return "".join(
        draw.choice(["", "\u2603", c * 2, "q"]) if draw.random() < share else c for c in text
    )


def bench_projection(student: str, teacher: str) -> dict[str, float]:
    """Build W in a process of its own, so that its peak memory is known."""
    command = [sys.executable, __file__, "--projection", student, teacher]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _projection_child(student: str, teacher: str) -> None:
    from xtoken_jax.projection import build_projection

    tokenizers = ByteTokenizer.load(student), ByteTokenizer.load(teacher)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    projection = build_projection(*tokenizers)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "seconds": seconds,
        "entries": int((projection.ids_VK >= 0).sum()),
        "peak_extra_mb": (after - before) / 1024,
        "peak_mb": after / 1024,
    }
    print(json.dumps(result))


def memory_bandwidth() -> float:
    """Bytes per second that one core copies: read and written, of 256 MB."""
    source = np.ones(1 << 25)
    target = np.empty_like(source)
    return 2 * source.nbytes / best(lambda: np.copyto(target, source), repeats=5)


def main() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # rates are of one core
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--megabytes", type=float, default=1.0, help="size of each corpus")
    parser.add_argument("--student", default="asset:llama3")
    parser.add_argument("--teacher", default="asset:qwen3")
    parser.add_argument("--projection", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.projection:
        _projection_child(*options.projection)
        return
    pair = Pair(options.student, options.teacher)
    texts = corpora(pair.tokenizers[0], int(options.megabytes * 1e6))
    result = {
        "student": options.student,
        "teacher": options.teacher,
        "load_average": os.getloadavg()[0],
        "memory_bytes_per_s": memory_bandwidth(),
        "corpora": {name: bench_corpus(pair, text) for name, text in texts.items()},
        "length": bench_length(pair, texts["prose"]),
        "dp": bench_dp(pair, texts["prose"]),
        "projection": bench_projection(options.student, options.teacher),
    }
    print(json.dumps(result) if options.json else _table(result))


def _table(result: dict) -> str:
    lines = [
        f"{result['student']} and {result['teacher']}, one core, "
        f"memory {result['memory_bytes_per_s'] / 1e9:.1f} GB/s, load {result['load_average']:.1f}",
        "",
        f"{'corpus':15s} student tokens    chunks  tokenise/s     align/s  with bos/eos  share",
    ]
    for name, row in result["corpora"].items():
        lines.append(
            f"{name:15s} {row['student_tokens']:14,d} {row['chunks']:9,d} "
            f"{row['tokenise_tokens_per_s'] / 1e6:9.2f} M {row['align_tokens_per_s'] / 1e6:9.1f} M "
            f"{row['align_with_bos_eos_tokens_per_s'] / 1e6:11.1f} M {row['align_share']:6.1%}"
        )
    length, projection = result["length"], result["projection"]
    lines += [
        "",
        f"one text: {length['ns_1x']:.1f} ns a token, 64 times as long {length['ns_64x']:.1f} ns, "
        f"ratio {length['ratio']:.2f}",
    ]
    for share, row in result["dp"].items():
        lines.append(
            f"DP path, {share} changed: {row['one_text_tokens_per_s'] / 1e6:.3f} M/s as one text, "
            f"{row['pieces_tokens_per_s'] / 1e6:.3f} M/s in pieces"
        )
    lines.append(
        f"W: {projection['seconds']:.2f} s, {projection['entries']:,} entries, peak "
        f"{projection['peak_extra_mb']:.0f} MB above the tokenizers' ({projection['peak_mb']:.0f})"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
