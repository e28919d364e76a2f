"""Store objects at an address, with conditional puts, and decide who owns a key there."""
