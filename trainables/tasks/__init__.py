"""Trainables and producers, one file each, and their registry."""
