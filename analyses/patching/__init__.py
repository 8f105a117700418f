"""The engine of activation patching that several methods share."""
