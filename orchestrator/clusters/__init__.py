"""Names clusters, and checks before a study starts that their hosts can do what it needs."""
