"""Read and check what a user writes: study files, mlflow.yaml, `--set`."""
