"""Finds the images of a data set in its folders, and the split and class of each."""
