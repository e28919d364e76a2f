"""Messages about a study that is done, has failed, stalls or has collapsed: each is sent once."""
