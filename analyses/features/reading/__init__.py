"""Reading features: a dictionary at its place in a model, and its values over texts."""
