"""Lenses: what the model's own tail reads from the inside of the model."""
