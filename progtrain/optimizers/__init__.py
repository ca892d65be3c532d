"""Optimizers whose state grows with the weights."""
