"""Turn a study and its data into an ordered list of Runs with keys."""
