"""Draws the pictures of binding_mechanisms.md anew: python docs/experiments/binding_pictures.py"""

from pathlib import Path

from mlxray import InterpretableModel

IMAGES = Path(__file__).resolve().parent / "images"


def main() -> None:
    """Write all of them."""
    model = InterpretableModel("pocket")
    result = model.binding_mechanisms(
        "has", "person", entities=5, samples=200, compare=["room", "color"], causal=True
    )
    moved = model.binding_mechanisms(
        "has", "person", entities=5, samples=40, positions=range(-12, 0), mixture=False
    )
    IMAGES.mkdir(exist_ok=True)
    for kind in ("shares", "groups", "mixture", "heads", "positions"):
        path = IMAGES / f"binding-{kind}.png"
        drawn = moved if kind == "positions" else result
        figure = drawn.plot(backend="matplotlib", kind=kind)
        # Without the version of the library, the same picture is the same file.
        figure.savefig(path, dpi=80, bbox_inches="tight", metadata={"Software": None})
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
