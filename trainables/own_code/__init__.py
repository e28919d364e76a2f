"""Finds and checks what users write themselves: `module:Name` in a study, a model or a notebook."""
