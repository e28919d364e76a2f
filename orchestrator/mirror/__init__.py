"""Keep copies of Runs in an object store: send them while they train, fetch them to go on."""
