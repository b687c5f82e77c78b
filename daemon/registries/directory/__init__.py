"""A directory tree."""
