"""The door of words: one file per verb; torch is imported inside the verb."""
