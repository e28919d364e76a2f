"""Statistics of a comparison: numbers in, intervals and tests out. Knows no Runs and no files.

SciPy is imported inside the functions that compute: it takes longer to load than most commands run.
"""
