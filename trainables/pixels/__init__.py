"""Reads what the pixels of files mean: images as RGB, masks as class ids."""
