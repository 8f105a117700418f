"""Pictures of conversations."""
