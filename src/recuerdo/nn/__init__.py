"""Parameters that two or more models share."""
