"""Subspaces that are interchanged between runs, and how they are learnt."""
