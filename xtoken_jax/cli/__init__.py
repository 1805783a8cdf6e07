"""The command line."""

from xtoken_jax.cli.main import main

__all__ = ["main"]
