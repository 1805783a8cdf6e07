"""An experiment's settings: a YAML file of fields, each with its default in `sections`."""

from xtoken_jax.config.files import check_config, differences, flat, load_config, merged, to_dict
from xtoken_jax.config.sections import (
    CheckpointConfig,
    DataConfig,
    DistillationConfig,
    EvaluationConfig,
    ExperimentConfig,
    LossConfig,
    MeshConfig,
    OptimConfig,
    PlannedModel,
    ProjectionConfig,
    SourceConfig,
    StudentConfig,
    TeacherConfig,
)

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "DistillationConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "LossConfig",
    "MeshConfig",
    "OptimConfig",
    "PlannedModel",
    "ProjectionConfig",
    "SourceConfig",
    "StudentConfig",
    "TeacherConfig",
    "check_config",
    "differences",
    "flat",
    "load_config",
    "merged",
    "to_dict",
]
