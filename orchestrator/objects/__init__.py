"""A store that is an address: objects with conditional puts, and who owns a key of it."""
