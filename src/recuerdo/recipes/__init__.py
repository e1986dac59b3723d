"""Data only: one TOML file for each run that can be trained by name; `recuerdo recipes ls` lists them."""
