"""From texts to aligned, packed batches in a reproducible order."""
