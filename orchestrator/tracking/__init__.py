"""Send what the store holds to MLflow, and read the state of Runs from it."""
