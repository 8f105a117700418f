"""Training of sparse dictionaries: one trainer for all kinds."""
