"""Data whose features are known, and how well a dictionary finds them."""
