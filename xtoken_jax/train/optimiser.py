"""AdamW under a warm-up and cosine schedule."""

import optax

from xtoken_jax.config import OptimConfig


def learning_rate_schedule(config: OptimConfig) -> optax.Schedule:
    """Linear over the warm-up, never 0, then a cosine down to the final fraction."""
    return optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / (config.warmup_steps + 1),
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=config.steps,
        end_value=config.learning_rate * config.final_learning_rate,
    )


def make_optimiser(config: OptimConfig) -> optax.GradientTransformation:
    """Clip by the global norm, then AdamW; its state has the shapes of the parameters."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate_schedule(config),
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
        ),
    )
