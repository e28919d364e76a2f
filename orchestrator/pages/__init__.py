"""What people see in the browser: views, addresses and notes of MLflow, and its server's pages."""
