"""Tables and figures: data in, text or matplotlib figures out. No Ray, no MLflow."""
