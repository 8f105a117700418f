"""Linear probes: what one is, how it is fitted, and its control tasks."""
