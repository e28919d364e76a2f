"""Learns from images: torch code that a notebook can import without Ray or MLflow."""
