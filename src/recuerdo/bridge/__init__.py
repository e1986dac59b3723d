"""Hugging Face models get addresses here; the catalogue of small real models."""

from recuerdo.bridge.attach import attach, is_foreign, watch

__all__ = ["attach", "is_foreign", "watch"]
