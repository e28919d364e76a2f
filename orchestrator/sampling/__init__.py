"""Samplers, one file each: they draw the configurations that the trials of a search try."""
