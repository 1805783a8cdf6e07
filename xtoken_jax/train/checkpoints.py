"""Orbax checkpoints: the state, the place in the data, and the config that they belong to."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from xtoken_jax.config import CheckpointConfig, ExperimentConfig, differences, to_dict
from xtoken_jax.errors import XTokenError
from xtoken_jax.train.step import TrainState


class Checkpoints:
    """The checkpoints of one run directory; Orbax writes each whole or not at all."""

    def __init__(self, directory: Path, config: CheckpointConfig) -> None:
        """Open the directory, made if need be."""
        options = ocp.CheckpointManagerOptions(max_to_keep=config.keep, create=True)
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=options,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "data": ocp.JsonCheckpointHandler(),
                "config": ocp.JsonCheckpointHandler(),
            },
        )
        self.directory = directory

    @property
    def latest_step(self) -> int | None:
        """Updates made in the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_state: dict[str, Any], config: ExperimentConfig) -> None:
        """Save under the state's step; does nothing where that step is saved already."""
        step = int(state.step)
        if step == self.latest_step:
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave(data_state),
            config=ocp.args.JsonSave(to_dict(config)),
        )
        self._manager.save(step, args=items)

    def restore(
        self, like: TrainState, config: ExperimentConfig
    ) -> tuple[TrainState, dict[str, Any]]:
        """The newest state, in the shapes and shardings of `like`, and the data's place.

        Raises:
            XTokenError: the checkpoint is of a run whose losses would differ.
        """
        step = self.latest_step
        saved = self._manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))
        if changed := differences(saved["config"], config):
            raise XTokenError(
                f"checkpoint {self.directory}/{step} is of another config; undo the change or "
                f"choose another `run_dir`: {'; '.join(changed)}"
            )
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["data"]

    def close(self) -> None:
        """Wait until what is being saved is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
