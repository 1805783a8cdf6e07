import re
import resource
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.commands import tree
from xtoken_jax.config import check_config
from xtoken_jax.errors import XTokenError
from xtoken_jax.train.checkpoints import Checkpoints
from xtoken_jax.train.step import Trained, TrainState

SOURCES = {"a.jsonl": "1", "b.jsonl": "2"}


def config(**changes):
    content = {
        "run_dir": "runs/x",
        "teachers": {"t": {"model": "t"}},
        "student": {"model": "s"},
        "data": {"train": [{"kind": "text", "path": "*.txt"}]},
        "checkpoint": {"keep": 3},
    }
    return check_config(content | changes, name="test")


def state(step):
    values_DF = np.random.default_rng(step).normal(size=(50, 40))
    student = {"kernel_DF": jnp.asarray(values_DF, jnp.float32)}
    trained = Trained(student, None)  # pyright: ignore[reportArgumentType]
    optimiser = {"mu": -trained.student["kernel_DF"]}
    return TrainState(trained, optimiser, jnp.int32(step), jnp.int32(1), jnp.bool(1))


def place(step):
    return {"next": step}


@pytest.fixture
def directory(tmp_path):
    """Of a run with checkpoints of steps 2, 4 and 6."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", config())
    checkpoints.check_sources(SOURCES)
    for step in (2, 4, 6):
        checkpoints.save(state(step), place(step))
    checkpoints.close()
    return tmp_path / "checkpoints"


def restored(directory):
    """The newest state that can be read and the place, on the host."""
    checkpoints = Checkpoints(directory, config())
    found, where = checkpoints.restore(state(0))
    checkpoints.close()
    return jax.device_get(found), where


def assert_is(found, step):
    jax.tree.map(np.testing.assert_array_equal, found[0], jax.device_get(state(step)))
    assert found[1] == place(step)


def largest(checkpoint):
    """The file of a checkpoint that holds most of its arrays."""
    files = (path for path in checkpoint.rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


def halve(checkpoint):
    path = largest(checkpoint)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def halve_without_sizes(checkpoint):
    (checkpoint / "files.json").unlink()
    halve(checkpoint)


def remove(checkpoint):
    largest(checkpoint).unlink()


def replace(checkpoint):
    largest(checkpoint).write_text("something else")


def flip_a_bit(checkpoint):
    path = largest(checkpoint)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def forget_the_place(checkpoint):
    (checkpoint / "data" / "metadata").write_text("{}")


DAMAGES = {
    halve: r"state/\S+ must have \d+ bytes, got \d+",
    halve_without_sizes: r"Exception: .*",
    remove: r"state/\S+ is missing",
    replace: r"state/\S+ must have \d+ bytes, got 14",
    flip_a_bit: r"ValueError: its arrays must have the checksum \d+, got \d+",
    forget_the_place: r"data/metadata must have \d+ bytes, got 2",
}


class TestRestore:
    def test_the_newest(self, directory):
        assert_is(restored(directory), 6)

    @pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
    def test_passes_over_a_damaged_one_and_keeps_it(self, directory, damage, capfd):
        damage(directory / "6")
        content = tree(directory / "6")
        assert_is(restored(directory), 4)
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1
        aside = directory.with_name("checkpoints_damaged") / "6"
        assert lines[0].startswith(f"checkpoint {directory}/6 is damaged (")
        assert lines[0].endswith(f"); it is kept as {aside}")
        reason = lines[0].partition("(")[2].rpartition(")")[0]
        assert re.fullmatch(DAMAGES[damage], reason)
        assert tree(aside) == content
        assert_is(restored(directory), 4)  # and nothing more is said
        assert capfd.readouterr().err == ""

    def test_of_two_damaged_ones(self, directory, capfd):
        halve(directory / "6")
        flip_a_bit(directory / "4")
        assert_is(restored(directory), 2)
        assert len(capfd.readouterr().err.splitlines()) == 2

    def test_a_step_that_was_damaged_is_saved_again(self, directory):
        for _ in range(2):
            remove(directory / "6")
            checkpoints = Checkpoints(directory, config())
            checkpoints.restore(state(0))
            checkpoints.save(state(6), place(6))
            checkpoints.close()
            assert_is(restored(directory), 6)
        assert {"6", "6-2"} <= tree(directory.with_name("checkpoints_damaged"))

    def test_what_is_not_a_checkpoint(self, directory, capfd):
        (directory / "9").mkdir()
        (directory / "notes.txt").write_text("mine")
        (directory / "12").write_text("a file")
        assert_is(restored(directory), 6)
        assert f"checkpoint {directory}/9 is damaged" in capfd.readouterr().err

    def test_none_that_is_good(self, directory):
        for step in (2, 4, 6):
            flip_a_bit(directory / str(step))
        before = tree(directory.parent)
        told = r"no checkpoint that can be read: 2: ValueError.*; 4: .*; 6: ValueError.*checksum"
        with pytest.raises(XTokenError, match=told):
            Checkpoints(directory, config()).restore(state(0))
        for step in (2, 4, 6):
            halve(directory / str(step))
        with pytest.raises(XTokenError, match=r"no checkpoint that can be read: 2: state/"):
            Checkpoints(directory, config())
        assert tree(directory.parent) == before

    def test_another_config_is_not_damage(self, directory):
        with pytest.raises(XTokenError, match=r"6 is of another config.*seed: 0 -> 1"):
            Checkpoints(directory, config(seed=1))


class TestSources:
    def test_the_same_ones(self, directory):
        Checkpoints(directory, config()).check_sources(dict(reversed(SOURCES.items())))

    @pytest.mark.parametrize(
        ("now", "named"),
        [
            (SOURCES | {"b.jsonl": "3"}, "b.jsonl must"),
            ({"a.jsonl": "1"}, "b.jsonl must"),
            (SOURCES | {"a.jsonl": "2", "c.jsonl": "1"}, "a.jsonl and 1 more must"),
        ],
    )
    def test_others_are_refused_by_name(self, directory, now, named):
        told = rf"6 was trained on other data: {named} be as it was"
        with pytest.raises(XTokenError, match=told):
            Checkpoints(directory, config()).check_sources(now)


@contextmanager
def files_of_at_most(size):
    """The system refuses to write longer files, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestFullDisk:
    def test_is_one_line_and_the_last_good_checkpoint_stays(self, directory, capfd):
        before = tree(directory)
        checkpoints = Checkpoints(directory, config())
        checkpoints.restore(state(0))
        told = r"checkpoints/8 could not be written: File too large; the last good one is 6"
        with files_of_at_most(3000), pytest.raises(XTokenError, match=told):
            checkpoints.save(state(8), place(8))
        assert capfd.readouterr().err == ""
        assert tree(directory) == before
        assert_is(restored(directory), 6)

    def test_before_the_first(self, tmp_path):
        checkpoints = Checkpoints(tmp_path / "checkpoints", config())
        told = r"checkpoints/2 could not be written: File too large; there is none before it"
        with files_of_at_most(3000), pytest.raises(XTokenError, match=told):
            checkpoints.save(state(2), place(2))
