"""Describe what a Run needs of a machine or cluster, as studies write it and as nodes have it."""
