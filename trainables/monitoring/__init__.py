"""Measure and record what a model has learned while it trains."""
