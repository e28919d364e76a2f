"""How data sets lie in folders: which files are images, and which split and class each has."""
