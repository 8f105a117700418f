"""Draws the pictures of two pages anew: python docs/experiments/induction_and_lens_pictures.py"""

from pathlib import Path

from mlxray import InterpretableModel

IMAGES = Path(__file__).resolve().parent / "images"
CAPITAL = "The capital of France is"
STORE = "Then Mary and John went to the store. John gave a drink to"


def main() -> None:
    """Write all of them."""
    model = InterpretableModel("pocket")
    figures = {
        "induction-heads": model.induction_heads().plot(backend="matplotlib"),
        "lens-comparison-capital": model.lens_comparison(CAPITAL).plot(backend="matplotlib"),
        "lens-comparison-store": model.lens_comparison(STORE, position=-1).plot(
            backend="matplotlib"
        ),
    }
    IMAGES.mkdir(exist_ok=True)
    for name, figure in figures.items():
        path = IMAGES / f"{name}.png"
        # Without the version of the library, the same picture is the same file.
        figure.savefig(path, dpi=80, bbox_inches="tight", metadata={"Software": None})
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
