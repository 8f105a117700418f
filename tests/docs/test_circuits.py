"""The pages about circuits show pictures and tables of the weights that are in the package."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CIRCUITS = ROOT / "docs/circuits"
IMAGES = sorted((CIRCUITS / "images").iterdir())
STALE = "the weights have changed: run `python docs/circuits/refresh.py`"


@pytest.fixture(scope="module")
def weights() -> str:
    return runpy.run_path(str(CIRCUITS / "refresh.py"))["weights"]()


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_picture_is_small_shown_and_of_these_weights(image: Path, weights: str):
    content = image.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 150_000
    assert any(f"images/{image.name}" in page.read_text("utf-8") for page in CIRCUITS.glob("*.md"))
    assert f"weights {weights}".encode() in content, STALE


def test_tables_are_of_these_weights_and_all_tasks(weights: str):
    text = (CIRCUITS / "index.md").read_text("utf-8")
    assert re.findall(r"<!-- weights (\w+) -->", text) == [weights] * 2, STALE
    benchmark = runpy.run_path(str(ROOT / "tests/benchmarks/pocket_circuits.py"))
    for name in benchmark["tasks"](2):
        # One row of the first table, one for each method of the second.
        assert text.count(f"\n| {name} |") == 1 + len(benchmark["METHODS"])


def test_circuits_in_the_table_are_small_and_faithful():
    text = (CIRCUITS / "index.md").read_text("utf-8")
    found = re.findall(r"\| (\d+) of (\d+) \| (\d+)% \|", text)
    assert len(found) >= 3
    for edges, total, faithfulness in found:
        assert int(edges) < 0.05 * int(total) and int(faithfulness) >= 85


def test_benchmark_measures_the_smallest_circuit():
    """Against the curve's own rows: no smaller one reaches the target."""
    from mlxray import InterpretableModel

    benchmark = runpy.run_path(str(ROOT / "tests/benchmarks/pocket_circuits.py"))
    model = InterpretableModel("pocket")
    pairs = benchmark["tasks"](2)["capitals"]
    edges, faithfulness, *_ = benchmark["circuit_row"](model, pairs)
    count = int(edges.split()[0])
    _, rows = model.circuit_curve(pairs, sizes=benchmark["SIZES"]).rows()
    shares = {row[0]: row[1] for row in rows}
    assert all(share < 0.85 for size, share in shares.items() if size < count)
    assert f"{shares[count]:.0%}" == faithfulness


@pytest.mark.parametrize(("share", "text"), [(-0.001, "0%"), (0.004, "0%"), (0.856, "86%")])
def test_no_sign_on_zero(share: float, text: str):
    assert (
        runpy.run_path(str(ROOT / "tests/benchmarks/pocket_circuits.py"))["percent"](share) == text
    )
