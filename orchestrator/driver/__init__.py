"""The driver of a submission: the process that runs as a Ray job and works through the plan."""
