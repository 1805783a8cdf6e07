"""`python -m xtoken_jax.cli`."""

from xtoken_jax.cli.main import main

main()
