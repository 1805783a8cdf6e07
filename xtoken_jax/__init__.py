"""X-Token: cross-tokenizer knowledge distillation in JAX (arXiv 2605.21699)."""
