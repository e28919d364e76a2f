"""Share a cluster between studies: who may start the next Run, agreed on without a server."""
