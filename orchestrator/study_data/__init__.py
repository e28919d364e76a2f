"""Read the data sets of a study, for each of its seeds, and check that they fit its stages."""
