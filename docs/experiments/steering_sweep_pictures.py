"""Draws the pictures of steering_sweep.md: python docs/experiments/steering_sweep_pictures.py"""

from pathlib import Path

from mlxray import InterpretableModel

IMAGES = Path(__file__).resolve().parent / "images"


def main() -> None:
    """Write both."""
    result = InterpretableModel("pocket").steering_sweep(
        "The capital of France is",
        target=" Rome",
        other=" Paris",
        positive="The capital of Italy is",
        negative="The capital of France is",
        point="resid_mid",
        position=-2,
    )
    IMAGES.mkdir(exist_ok=True)
    for name, view in (("steering-sweep", "map"), ("steering-sweep-curves", "curves")):
        path = IMAGES / f"{name}.png"
        figure = result.plot(backend="matplotlib", view=view)
        # Without the version of the library, the same picture is the same file.
        figure.savefig(path, dpi=90, bbox_inches="tight", metadata={"Software": None})
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
