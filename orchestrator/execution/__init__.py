"""Run one Run: services, Ray jobs, resources, workers, and why an attempt ended."""
