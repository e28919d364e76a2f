"""Says what a study may set for each task, and the facts of the task; nothing here loads torch."""
