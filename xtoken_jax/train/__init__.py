"""Mesh, optimiser, step, checkpoints and the loop."""
