"""What the stream is a sum of, and norms and heads as the linear maps that its parts go through."""
