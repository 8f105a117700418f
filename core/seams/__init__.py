"""Seams: what a call of a module is, and how it is seen, changed or skipped."""
