"""The machine that MLX runs on: its BLAS, and what `mlxray doctor` looks at."""
