"""Pictures of lenses."""
