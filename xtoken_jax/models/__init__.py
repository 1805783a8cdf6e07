"""Flax NNX decoders, Hugging Face weights in and out, vocabulary transplant."""
