"""SAELens: ``cfg.json`` and ``sae_weights.safetensors``, of version 6 and before."""
