"""Tell by content which images are the same, or nearly the same, whatever they are called."""
