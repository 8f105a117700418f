"""Pictures of steering."""
