"""Lenses side by side."""
