"""Measures what Runs take of a machine, and shows figures of a study to Prometheus."""
