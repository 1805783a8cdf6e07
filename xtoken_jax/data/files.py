"""Bytes of files, compressed or not, a block at a time."""

import glob
import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from xtoken_jax.errors import UsageError

_BLOCK = 1 << 20


class DamagedFileError(Exception):
    """A compressed file ends early or is not what its name says."""


def matches(pattern: str) -> list[Path]:
    """The files that a glob names, in the order of their names; `**` and `~` as in a shell.

    Raises:
        UsageError: there are none.
    """
    found = glob.glob(os.path.expanduser(pattern), recursive=True)
    files = [path for path in map(Path, sorted(found)) if path.is_file()]
    if not files:
        raise UsageError(f"`path` must name at least one file, but nothing matches {pattern}")
    return files


def blocks(path: Path) -> Iterator[bytes]:
    """The content of a file, unpacked where its name ends in `.gz` or `.zst`.

    Raises:
        DamagedFileError: it cannot be unpacked to its end; what came before has been given.
        UsageError: what unpacks `.zst` is not installed.
    """
    if path.suffix == ".zst":
        yield from _zst_blocks(path)
        return
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            # `read` would lose what it has unpacked when it comes to where a file is cut off.
            yield from iter(partial(file.read1, _BLOCK), b"")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DamagedFileError(str(error)) from error


def _zst_blocks(path: Path) -> Iterator[bytes]:
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor, ZstdError
    else:
        try:
            from zstandard import ZstdDecompressor, ZstdError
        except ImportError as error:
            raise UsageError(f"{path} needs zstandard: pip install 'xtoken_jax[data]'") from error
    new = ZstdDecompressor if sys.version_info >= (3, 14) else _zstandard_object
    frame = new()
    try:
        with open(path, "rb") as file:
            for packed in iter(partial(file.read, _BLOCK), b""):
                while packed:
                    if frame.eof:  # a file may be several frames, end to end
                        frame = new()
                    yield frame.decompress(packed)
                    packed = frame.unused_data if frame.eof else b""
    except ZstdError as error:
        raise DamagedFileError(str(error)) from error
    if not frame.eof:
        raise DamagedFileError("it ended before the end-of-stream marker was reached")


def _zstandard_object():
    from zstandard import ZstdDecompressor

    return ZstdDecompressor().decompressobj()


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, without their ends; memory for one line and one block.

    Raises:
        DamagedFileError: as `blocks` does, after the last whole line.
    """
    rest: list[bytes] = []
    for block in blocks(path):
        first, *others = block.split(b"\n")
        rest.append(first)
        for line in others:
            yield b"".join(rest)
            rest = [line]
    if last := b"".join(rest):
        yield last
