"""One use each: its data, its models, its loss, its metric, and what the eye wants to see."""
