"""Searches: sample configurations, run them as trials on Ray Tune, report what was found."""
