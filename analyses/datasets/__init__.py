"""Pairs of clean and corrupted prompts: made, read from files, aligned."""
