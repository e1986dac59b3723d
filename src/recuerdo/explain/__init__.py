"""Reads become evidence that people can look at: words, views, maps, and their renders."""
