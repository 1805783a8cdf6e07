"""One process at a time in a run directory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from xtoken_jax.errors import XTokenError
from xtoken_jax.processes import is_first

_NAME = ".lock"


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold a run directory while the block runs; the system lets go of it however the process ends.

    The directory is made if need be, and goes again if nothing was written into it. Of the
    processes of one run, the first holds it for all.

    Raises:
        XTokenError: another process holds it.
    """
    if not is_first():
        yield
        return
    missing = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / _NAME
    # Read before the attempt, which may empty the file.
    holder = path.read_text(encoding="utf-8") if path.is_file() else ""
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        who = f"process {holder}" if holder else "another process"
        raise XTokenError(
            f"`run_dir` {run_dir} must not be in use, but {who} is training in it"
        ) from error
    try:
        path.write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        if [entry.name for entry in run_dir.iterdir()] == [_NAME] and missing:
            path.unlink()
        lock.release()
        with suppress(OSError):  # the first that is not empty ends it
            for directory in missing:
                directory.rmdir()
