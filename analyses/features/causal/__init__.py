"""What features do: patching, and circuits of features."""
