"""Draws the picture of generation.md anew: python docs/generation_pictures.py"""

from pathlib import Path

from mlxray import InterpretableModel

if __name__ == "__main__":
    written = InterpretableModel("pocket").generate("Once upon a time", 40, temperature=1.0, seed=3)
    figure = written.plot(backend="matplotlib")
    path = Path(__file__).parent / "images/generation.png"
    # Without the version of the library, the same picture is the same file.
    figure.savefig(path, dpi=90, bbox_inches="tight", metadata={"Software": None})
