"""Start, find and end the services of a home: a Ray head and an MLflow server."""
