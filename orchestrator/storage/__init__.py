"""Files below the home: checkpoints, records, logs, locks."""
