"""Pictures of generated text."""
