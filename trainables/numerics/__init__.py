"""Random numbers, precision, and arithmetic over several processes."""
