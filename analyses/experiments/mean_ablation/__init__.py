"""Mean ablation of components."""
