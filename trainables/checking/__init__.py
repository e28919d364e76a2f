"""Checks that a trainable keeps its contract, by training it on tiny data."""
