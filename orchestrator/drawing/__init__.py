"""Draws pictures of one Run or search, and holds what all pictures share. Data in, pictures out."""
