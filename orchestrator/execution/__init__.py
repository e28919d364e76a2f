"""Run one Run: Ray jobs, resources, workers, and why an attempt ended."""
