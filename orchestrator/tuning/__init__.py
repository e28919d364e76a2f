"""Searches: draw configurations, run them as trials on Ray Tune, and report what they reached."""
