"""Data sets, and batches as a function of (seed, position)."""
