"""The report of a submission: one HTML file that a reader understands without anything else."""
