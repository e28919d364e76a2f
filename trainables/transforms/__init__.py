"""Augments whole batches on the training device."""
