"""Reads become evidence that people can look at: words, views, maps, and their renders."""

KINDS = (".html", ".svg", ".png", ".json", ".npz")
"""The files that a look can be written to."""
