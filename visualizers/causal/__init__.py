"""Pictures of patching and attribution."""
