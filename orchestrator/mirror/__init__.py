"""Copies of Runs in an object store: sent while they train, fetched where they go on."""
