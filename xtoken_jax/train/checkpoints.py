"""Orbax checkpoints: the state, the place in the data, and the config that they belong to."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from xtoken_jax.config import ExperimentConfig, differences, to_dict
from xtoken_jax.errors import XTokenError
from xtoken_jax.train.step import TrainState


class Checkpoints:
    """The checkpoints of one run directory; Orbax writes each whole or not at all.

    Nothing is made on disk before the first save.
    """

    def __init__(self, directory: Path, config: ExperimentConfig) -> None:
        """Look at a directory, which need not exist.

        Raises:
            XTokenError: its newest checkpoint is of a run whose losses would differ.
        """
        self.directory = directory
        self._config = config
        if self.latest_step is not None:
            self._check_config()

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
        """Updates made in the newest checkpoint, None where there is none."""
        return self._manager.latest_step() if self.directory.is_dir() else None

    def _check_config(self) -> None:
        step = self.latest_step
        items = ocp.args.Composite(config=ocp.args.JsonRestore())
        saved = self._manager.restore(step, args=items)["config"]
        if changed := differences(saved, self._config):
            raise XTokenError(
                f"checkpoint {self.directory}/{step} is of another config; undo the change or "
                f"choose another `run_dir`: {'; '.join(changed)}"
            )

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Save under the state's step; does nothing where that step is saved already."""
        step = int(state.step)
        if step == self.latest_step:
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave(data_state),
            config=ocp.args.JsonSave(to_dict(self._config)),
        )
        self._manager.save(step, args=items)

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest state, in the shapes and shardings of `like`, and the data's place.

        The mesh may be another than the one that saved: only the padding of the vocabulary differs.
        """
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        items = ocp.args.Composite(
            # Not strict: rows that pad the vocabulary to the mesh, zeros, are cut or added.
            state=ocp.args.StandardRestore(abstract, strict=False),
            data=ocp.args.JsonRestore(),
        )
        restored = self._manager.restore(self.latest_step, args=items)
        # A state saved because a loss was not finite is sound itself, and may go on.
        return dataclasses.replace(restored["state"], healthy=like.healthy), restored["data"]

    def close(self) -> None:
        """Wait until what is being saved is on disk."""
        if self.directory.is_dir():
            self._manager.wait_until_finished()
            self._manager.close()
