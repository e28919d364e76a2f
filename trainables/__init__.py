"""What is learnt: torch code that is importable in a notebook without Ray or MLflow."""
