"""Workers of Ray that start warm, forked from a template, and fits that end at once."""
