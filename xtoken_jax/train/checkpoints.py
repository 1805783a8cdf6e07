"""Orbax checkpoints: the state, the place in the data, and the config that they belong to."""

import dataclasses
import functools
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from xtoken_jax.config import ExperimentConfig, differences, to_dict
from xtoken_jax.errors import XTokenError
from xtoken_jax.processes import is_first, say, wait_for_all
from xtoken_jax.train.attempts import Failure, Success, attempt
from xtoken_jax.train.fingerprints import changed_sources
from xtoken_jax.train.integrity import checksum, record_sizes, size_complaint
from xtoken_jax.train.step import TrainState

_REMOVALS = 50


class Checkpoints:
    """The checkpoints of one run directory; Orbax writes each whole or not at all.

    One that cannot be read is passed over for the one before it, and kept beside. Nothing is made
    on disk before the first save.
    """

    def __init__(self, directory: Path, config: ExperimentConfig) -> None:
        """Look at a directory, which need not exist.

        Raises:
            XTokenError: it has checkpoints but none can be read, or the newest that can is of a
                run whose losses would differ.
        """
        self.directory = directory
        self._config = config
        self._sources: Mapping[str, str] = {}
        self._damaged: dict[int, str] = {}
        self._unrecorded: int | None = None
        self._saved = self._newest_readable()
        if self._saved is not None:
            self._check_config(self._saved)

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._config.checkpoint.keep,
            create=True,
            # On a CPU a copy to save from in the background would double the memory of the state,
            # and the cores that write it are those that train.
            enable_async_checkpointing=jax.default_backend() != "cpu",
        )
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "data": ocp.JsonCheckpointHandler(),
            "config": ocp.JsonCheckpointHandler(),
        }
        return ocp.CheckpointManager(
            self.directory.absolute(), options=options, item_handlers=handlers
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint that is not known to be damaged, None without one."""
        return max(self._steps() - self._damaged.keys(), default=None)

    def _steps(self) -> set[int]:
        if not self.directory.is_dir():
            return set()
        entries = self.directory.iterdir()
        return {int(entry.name) for entry in entries if entry.name.isdecimal() and entry.is_dir()}

    def _newest_readable(self) -> Mapping[str, Any] | None:
        """The config and the data's place of the newest checkpoint that has them."""
        while (step := self.latest_step) is not None:
            complaint = size_complaint(self.directory / str(step))
            found = Failure(complaint) if complaint else attempt(self._read_json, step)
            if isinstance(found, Success):
                return found.value
            self._damaged[step] = found.reason
        if self._damaged:
            raise XTokenError(self._none_is_good())
        return None

    def _read_json(self, step: int) -> Mapping[str, Any]:
        items = ocp.args.Composite(config=ocp.args.JsonRestore(), data=ocp.args.JsonRestore())
        saved = self._manager.restore(step, args=items)
        data = saved["data"]
        return {
            "config": saved["config"],
            "place": data["place"],
            "sources": data["sources"],
            "checksum": data["checksum"],
        }

    def _check_config(self, saved: Mapping[str, Any]) -> None:
        if changed := differences(saved["config"], self._config):
            raise XTokenError(
                f"checkpoint {self.directory}/{self.latest_step} is of another config; undo the "
                f"change or choose another `run_dir`: {'; '.join(changed)}"
            )

    def check_sources(self, sources: Mapping[str, str]) -> None:
        """Take note of the data, which every checkpoint is to go with.

        Args:
            sources: A fingerprint for each source, by name.

        Raises:
            XTokenError: the newest checkpoint was trained on other data.
        """
        self._sources = sources
        if self._saved is None:
            return
        if changed := changed_sources(self._saved["sources"], sources):
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise XTokenError(
                f"checkpoint {self.directory}/{self.latest_step} was trained on other data: "
                f"{changed[0]}{more} must be as it was; undo the change or choose another `run_dir`"
            )

    def save(self, state: TrainState, place: Mapping[str, Any]) -> None:
        """Save under the state's step; does nothing where that step is saved already.

        Raises:
            XTokenError: it cannot be written, or one that was being written in the background
                could not; those before it are still there.
        """
        step = int(state.step)
        if step == self.latest_step:
            return
        data = {
            "place": place,
            "sources": dict(self._sources),
            "checksum": int(checksum(_checked(state))),
        }
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave(data),
            config=ocp.args.JsonSave(to_dict(self._config)),
        )

        def save() -> None:
            self._finish()
            self._unrecorded = step
            self._manager.save(step, args=items)
            if jax.default_backend() == "cpu":
                self._finish()

        self._write(save, step)

    def _write(self, action: Callable[[], None], step: int) -> None:
        outcome = attempt(action)
        if isinstance(outcome, Success):
            return
        self._remove_remnants()
        last = self.latest_step
        kept = "there is none before it" if last is None else f"the last good one is {last}"
        raise XTokenError(
            f"checkpoint {self.directory}/{step} could not be written: {outcome.reason}; {kept}"
        )

    def _remove_remnants(self) -> None:
        """Remove what was half-written, which may be what fills the disk."""
        if not is_first():
            return
        for _ in range(_REMOVALS):
            for remnant in self.directory.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(remnant, ignore_errors=True)
            time.sleep(0.1)  # TensorStore's threads may still be writing
            if not any(self.directory.glob("*.orbax-checkpoint-tmp*")):
                return

    def _finish(self) -> None:
        """Wait until what is being saved is on disk."""
        self._manager.wait_until_finished()
        if self._unrecorded is not None:
            if is_first():
                record_sizes(self.directory / str(self._unrecorded))
            self._unrecorded = None

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest state that can be read, and the data's place.

        It gets the shapes and shardings of `like`. The mesh may be another than the one that saved:
        only the padding of the vocabulary differs.

        Raises:
            XTokenError: no checkpoint can be read.
        """
        while (saved := self._newest_readable()) is not None:
            self._check_config(saved)
            step = self.latest_step
            assert step is not None
            outcome = attempt(self._restore, step, like, saved["checksum"])
            if isinstance(outcome, Success):
                self._set_damaged_aside()
                return outcome.value, saved["place"]
            self._damaged[step] = outcome.reason
        raise XTokenError(self._none_is_good())

    def _restore(self, step: int, like: TrainState, expected: int) -> TrainState:
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        # Not strict: rows that pad the vocabulary to the mesh, zeros, are cut or added.
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract, strict=False))
        state = self._manager.restore(step, args=items)["state"]
        if (found := int(checksum(_checked(state)))) != expected:
            raise ValueError(f"its arrays must have the checksum {expected}, got {found}")
        # A state saved because a loss was not finite is sound itself, and may go on.
        return dataclasses.replace(state, healthy=like.healthy)

    def _none_is_good(self) -> str:
        reasons = (f"{step}: {reason}" for step, reason in sorted(self._damaged.items()))
        return f"{self.directory} has no checkpoint that can be read: {'; '.join(reasons)}"

    def _set_damaged_aside(self) -> None:
        for step, reason in self._damaged.items() if is_first() else ():
            aside = _free_name(self.directory.with_name("checkpoints_damaged") / str(step))
            aside.parent.mkdir(exist_ok=True)
            (self.directory / str(step)).rename(aside)
            say(f"checkpoint {self.directory}/{step} is damaged ({reason}); it is kept as {aside}")
        if self._damaged:
            wait_for_all("damaged checkpoints")
            self._damaged.clear()
            self._manager.reload()

    def close(self) -> None:
        """Wait until what is being saved is on disk.

        Raises:
            XTokenError: it could not be written.
        """
        if self.directory.is_dir():
            self._write(self._finish, self._unrecorded or 0)
            self._manager.close()


def _checked(state: TrainState) -> tuple[Any, ...]:
    return state.params, state.optimiser, state.step, state.skipped


def _free_name(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}-{number}") for number in range(2, 10**6))
    return path if not path.exists() else next(name for name in numbered if not name.exists())
