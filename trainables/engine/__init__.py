"""The training loop, without Ray and MLflow."""
