"""Makes the report of a submission: one HTML file that explains itself."""
