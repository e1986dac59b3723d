"""Bytes become batches: stories with questions, sequences to recall, simulated worlds."""
