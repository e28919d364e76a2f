"""Settle which own code a study uses: where it lies, whether it can be used, its version."""
