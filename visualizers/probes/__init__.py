"""Pictures of probes, erasures and aligned subspaces."""
