"""Sends messages about a study that is done, has failed, stalls or has collapsed, each once."""
