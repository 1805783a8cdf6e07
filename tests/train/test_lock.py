import os
import signal
import subprocess
import sys

import pytest

from tests.commands import tree
from xtoken_jax.errors import XTokenError
from xtoken_jax.train.lock import locked

HOLDER = """
import sys, time
from pathlib import Path
from xtoken_jax.train.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_while_the_first_lives(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        told = rf"`run_dir` .* must not be in use, but process {holder.pid} is training in it"
        for _ in range(2):  # the first refusal leaves the holder's name readable
            with pytest.raises(XTokenError, match=told), locked(tmp_path):
                pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_leaves_nothing_where_nothing_was_written(tmp_path):
    run_dir = tmp_path / "runs" / "one"
    with pytest.raises(RuntimeError), locked(run_dir):
        raise RuntimeError
    assert tree(tmp_path) == set()


def test_leaves_what_was_written(tmp_path):
    run_dir = tmp_path / "runs" / "one"
    with locked(run_dir):
        (run_dir / "config.yaml").write_text("")
    assert "runs/one/config.yaml" in tree(tmp_path)
    with locked(run_dir):
        pass
