"""mlxray: look inside language models on MLX."""
