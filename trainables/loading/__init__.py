"""Decode images once into a cache, and read batches from it."""
