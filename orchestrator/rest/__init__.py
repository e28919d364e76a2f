"""Ask MLflow and Ray over HTTP, without their clients, which take seconds to load."""
