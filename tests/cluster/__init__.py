"""Several hosts on one machine and a Ray cluster on them, so that a study crosses a network."""
