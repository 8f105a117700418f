"""Induction heads, found and ablated."""
