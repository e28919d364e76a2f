"""Makes what people see in the browser: views, addresses, notes and server of MLflow's pages."""
