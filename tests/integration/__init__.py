"""Tests with a real Ray head and a real MLflow server, one of each for the whole session."""
