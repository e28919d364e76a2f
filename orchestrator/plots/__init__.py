"""Holds the figures of a comparison, one file each: the data of a submission in, a figure out."""
