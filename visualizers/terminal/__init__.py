"""Drawings for a terminal, registered with ``backend="terminal"``."""
