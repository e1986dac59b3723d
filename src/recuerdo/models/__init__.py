"""One architecture each, readable alone."""
