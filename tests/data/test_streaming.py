"""Sources larger than memory: no more is held than a few blocks."""

import functools
import gzip
import json
import tracemalloc

import pytest

from tests.data.test_prepare import make_plan
from tests.tiny import sentences
from xtoken_jax.data import Document, Tally, jsonl_files, part_of, prepare, text_files

MEGABYTE = 1 << 20


def peak_of(items):
    """The most memory that Python held while it went through the items, and how many there are."""
    tracemalloc.start()
    count = sum(1 for _ in items)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, count


class TestFiles:
    @pytest.fixture
    def lines(self):
        return [json.dumps({"text": f"{i} " + "word " * 200}).encode() for i in range(16_000)]

    @pytest.mark.parametrize("kind", ["plain", "gz", "zst"])
    def test_lines_are_read_as_they_are_asked_for(self, tmp_path, lines, kind):
        content = b"\n".join(lines)
        assert len(content) > 15 * MEGABYTE
        if kind == "zst":
            zstandard = pytest.importorskip("zstandard", reason="the extra `data`")
            path = tmp_path / "a.jsonl.zst"
            # Frames, as tools write that compress in parallel.
            parts = [b"\n".join(lines[i : i + 1000]) + b"\n" for i in range(0, len(lines), 1000)]
            path.write_bytes(b"".join(map(zstandard.compress, parts)))
        else:
            path = tmp_path / ("a.jsonl.gz" if kind == "gz" else "a.jsonl")
            path.write_bytes(gzip.compress(content, 1) if kind == "gz" else content)
        peak, count = peak_of(part_of(jsonl_files(str(path)), "all"))
        assert count == len(lines)
        assert peak < 8 * MEGABYTE

    def test_files_are_read_one_after_the_other(self, tmp_path):
        for number in range(10):
            (tmp_path / f"{number}.txt").write_text("word " * (MEGABYTE // 5))
        peak, count = peak_of(text_files(f"{tmp_path}/*.txt"))
        assert count == 10
        assert peak < 6 * MEGABYTE


@pytest.mark.parametrize(("workers", "blocks"), [(1, 1), (2, 5)])
def test_documents_are_read_a_few_blocks_before_they_are_shards(tmp_path, workers, blocks):
    """One block alone; with processes, two for each and the next one."""
    texts = sentences(400)
    block_bytes = 1000
    read = finished = most = 0

    def source():
        nonlocal read
        for number, text in enumerate(texts):
            read += 1
            yield Document(text, f"s:{number}")

    def progress(shard):
        nonlocal finished, most
        most = max(most, read - finished)
        finished += shard["counts"]["documents"]

    manifest = prepare(
        tmp_path / "rows",
        [source],
        functools.partial(make_plan, tmp_path, sources=["first"]),
        Tally(),
        workers=workers,
        block_bytes=block_bytes,
        progress=progress,
    )
    assert finished == len(texts)
    assert len(manifest["shards"]) > 20
    assert most <= blocks * (block_bytes // min(map(len, texts)) + 1)
