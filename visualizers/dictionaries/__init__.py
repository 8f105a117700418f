"""Pictures of sparse dictionaries."""
