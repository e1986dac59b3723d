"""Memory that outlives the process: rows with keys, kept for good and found by softmax."""
