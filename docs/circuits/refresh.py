"""Writes anew what these pages show: pictures, tables, and the outputs of their blocks.

    python docs/circuits/refresh.py [pictures | tables | pages …]

To be run when the weights of the embedded model have changed. All three if none is named.
"""

from __future__ import annotations

import hashlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

from mlxray import InterpretableModel
from mlxray.analyses.datasets.generators import capitals, induction, ioi
from mlxray.analyses.datasets.pairs import PairSet
from mlxray.pocket import PATH
from mlxray.results.base import AnalysisResult

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BENCHMARK = ROOT / "tests/benchmarks/pocket_circuits.py"
DPI = 90


def weights() -> str:
    """Which weights: pictures and tables carry it, and a test compares."""
    return hashlib.sha256((PATH / "model.safetensors").read_bytes()).hexdigest()[:16]


def save(result: AnalysisResult, name: str, **options: object) -> None:
    figure = result.plot(backend="matplotlib", **options)
    path = HERE / "images" / f"{name}.png"
    # Without the version of the library, the same picture is the same file.
    metadata = {"Software": None, "Description": f"weights {weights()}"}
    figure.savefig(path, dpi=DPI, bbox_inches="tight", metadata=metadata)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def pictures() -> None:
    """With the pairs and the sizes of the pages."""
    model = InterpretableModel("pocket")
    sets: dict[str, tuple[PairSet, range]] = {
        "induction-value": (induction(8, corruption="value"), range(8, 23, 2)),
        "induction-key": (induction(8, corruption="key"), range(8, 23, 2)),
        "ioi": (ioi(8), range(8, 25, 2)),
        "capitals": (capitals(8), range(5, 21)),
    }
    for name, (pairs, sizes) in sets.items():
        curve = model.circuit_curve(pairs, sizes=sizes, target=0.85)
        assert curve.circuit is not None, f"{name}: {curve.summary()}"
        pair = pairs.aligned(model)[0]
        answers = pair.metric_kwargs
        parts = model.direct_logit_attribution(
            pair.clean, answers["correct_token"], incorrect_token=answers["incorrect_token"]
        )
        if name.startswith("induction"):
            save(curve.circuit, name)
            if name.endswith("key"):
                save(parts, "induction-dla", figsize=(11, 4.2))
            continue
        save(curve.circuit, f"{name}-circuit")
        save(curve, f"{name}-curve")
        save(parts, f"{name}-dla", figsize=(11, 4.2))
        grid = model.activation_patching(
            pair.clean,
            pair.corrupted,
            "resid_pre",
            metric="logit_diff",
            by="position",
            metric_kwargs=answers,
        )
        save(grid, f"{name}-positions")


def tables() -> None:
    """Those of the benchmark, into index.md."""
    benchmark = runpy.run_path(str(BENCHMARK))
    made = benchmark["tables"](InterpretableModel("pocket"), benchmark["PAIRS"])
    page = HERE / "index.md"
    text = page.read_text(encoding="utf-8")
    for name, (title, columns, rows) in zip(("circuits", "attribution"), made, strict=True):
        lines = [f"{title[0].upper()}{title[1:]}:", ""]
        lines += [
            "| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *rows)
        ]
        inside = re.compile(rf"(<!-- measured: {name} -->\n).*?(<!-- measured end -->)", re.DOTALL)
        table = f"<!-- weights {weights()} -->\n\n" + "\n".join(lines) + "\n\n"
        text, count = inside.subn(lambda m, table=table: m[1] + table + m[2], text)
        assert count == 1, f"index.md has {count} places for {name}"
    page.write_text(text, encoding="utf-8")


def pages() -> None:
    """The outputs of all blocks of this folder's pages."""
    build = ROOT / "docs/build.py"
    subprocess.run([sys.executable, str(build), *map(str, sorted(HERE.glob("*.md")))], check=True)


PARTS = {"pictures": pictures, "tables": tables, "pages": pages}


def main() -> None:
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
