"""The services of a home: a Ray head and an MLflow server, their processes and ports."""
