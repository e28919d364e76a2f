"""Data sets as they lie on disk: which image has which label and split."""
