"""Draws the pictures of mean_ablation.md anew: python docs/experiments/mean_ablation_pictures.py"""

from pathlib import Path

from mlxray import InterpretableModel

IMAGES = Path(__file__).resolve().parent / "images"
PET = "John has a dog. Mary has a cat. What pet does John have? The"
ANN = "Ann has the apple. Bob has the pear. What does Ann have? The"


def main() -> None:
    """Write all of them."""
    model = InterpretableModel("pocket")
    results = {
        "pet": model.mean_ablation(PET),
        "ann": model.mean_ablation(ANN),
        "heads": model.mean_ablation(PET, component="heads"),
    }
    IMAGES.mkdir(exist_ok=True)
    for name, result in results.items():
        path = IMAGES / f"mean-ablation-{name}.png"
        figure = result.plot(backend="matplotlib")
        # Without the version of the library, the same picture is the same file.
        figure.savefig(path, dpi=90, bbox_inches="tight", metadata={"Software": None})
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
