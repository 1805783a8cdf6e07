"""AdamW under a warm-up and cosine schedule."""

from collections.abc import Hashable, Mapping

import jax
import jax.numpy as jnp
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
    config: OptimConfig, learned: Mapping[str, ProjectionConfig]
) -> optax.GradientTransformation:
    """Clip by the global norm, then AdamW, of `step.Trained`; states have the parameters' shapes.

    Each `learned` W, by teacher, has an Adam of its own, with a constant learning rate and no
    clipping.
    """
    student = optax.chain(
        _clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate_schedule(config),
            b1=config.b1,
            b2=config.b2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
        ),
    )
    if not learned:
        return student
    transforms: dict[Hashable, optax.GradientTransformation] = {_STUDENT: student}
    transforms |= {name: optax.adam(options.learning_rate) for name, options in learned.items()}
    return optax.partition(transforms, _labels)


def _clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """What `optax.clip_by_global_norm` does, by one factor for all gradients.

    Optax divides each gradient, in a pass of its own whose results XLA keeps beside the gradients;
    a product is fused into what reads it.
    """

    def update(updates, state, params=None):
        del params
        scale = jnp.minimum(1.0, max_norm / optax.tree.norm(updates))
        return jax.tree.map(lambda update: scale * update, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


# No teacher can have this name.
_STUDENT = ""


def _labels(trained):
    return trained._replace(
        student=_STUDENT, entry_logits={name: name for name in trained.entry_logits}
    )
