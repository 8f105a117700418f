"""The embedded model: a Llama of about one million parameters that the repository trains itself.

``PATH`` is the folder with its weights, configuration, tokenizer and model card, ready for
``mlx_lm.load(str(PATH))``. Nothing heavy is imported here.

>>> from mlxray.pocket import PATH
>>> (PATH / "config.json").name
'config.json'
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["PATH"]

PATH: Path = Path(__file__).resolve().parent / "weights"
"""Folder of the shipped model (``model.safetensors``, ``config.json``, tokenizer, card)."""
