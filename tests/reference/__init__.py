"""Slow, obvious float64 versions of what the package computes, written from the equations."""
