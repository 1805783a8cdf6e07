"""AdamW under a warm-up and cosine schedule."""

from collections.abc import Hashable

import optax

from xtoken_jax.config import OptimConfig, ProjectionConfig


def learning_rate_schedule(config: OptimConfig) -> optax.Schedule:
    """Linear over the warm-up, never 0, then a cosine down to the final fraction."""
    return optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / (config.warmup_steps + 1),
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=config.steps,
        end_value=config.learning_rate * config.final_learning_rate,
    )


def make_optimiser(
    config: OptimConfig, projection: ProjectionConfig
) -> optax.GradientTransformation:
    """Clip by the global norm, then AdamW, of `step.Trained`; states have the parameters' shapes.

    A learned W has an Adam of its own, with a constant learning rate and no clipping.
    """
    student = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate_schedule(config),
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
        ),
    )
    if not projection.learned:
        return student
    transforms: dict[Hashable, optax.GradientTransformation]
    transforms = {"student": student, "w": optax.adam(projection.learning_rate)}
    return optax.partition(transforms, _labels)


def _labels(trained):
    return trained._replace(student="student", entry_logits_N="w")
