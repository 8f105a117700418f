"""Pictures of features: effects, circuits, examples, histograms, logits."""
