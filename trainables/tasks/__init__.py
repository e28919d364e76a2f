"""What can be learned or made: one file for each trainable and producer, and their registry."""
