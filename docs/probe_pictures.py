"""Draws the pictures of reference/probes.md anew: python docs/probe_pictures.py"""

from itertools import permutations
from pathlib import Path

from mlxray import InterpretableModel
from mlxray.analyses.probes import Interchange

IMAGES = Path(__file__).resolve().parent / "images"
NOUNS = "key author picture door teacher report sign window road toy".split()
OTHERS = "cabinet friend ship hotel river lake".split()
CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Norway": "Oslo",
    "Peru": "Lima",
    "Cuba": "Havana",
}


def write(result, name, **options):
    figure = result.plot(backend="matplotlib", **options)
    # Without the version of the library, the same picture is the same file.
    figure.savefig(IMAGES / name, dpi=90, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    model = InterpretableModel("pocket")
    numbers = ("", "singular"), ("s", "plural")
    examples = [
        (f"The {noun}{end} near the {other}", label, noun)
        for noun in NOUNS
        for other in OTHERS
        for end, label in numbers
    ]
    texts, labels, nouns = map(list, zip(*examples, strict=True))
    points = ["resid_post", "attn_out"]
    probes = model.linear_probe(
        texts, labels, kind="least_squares", groups=nouns, points=points, test_size=0.5
    )
    write(probes, "probes.png")
    swaps = [
        Interchange(f"The capital of {a} is", f"The capital of {b} is", f" {CAPITALS[b]}")
        for a, b in permutations(CAPITALS, 2)
    ]
    found = model.distributed_alignment_search(
        swaps, positions=[-3, -2, -1], rank=6, steps=25, learning_rate=0.05, verbose=True
    )
    write(found, "alignment.png", view="map")
