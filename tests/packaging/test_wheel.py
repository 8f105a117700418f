"""A wheel is built once and compared with the checkout."""

import configparser
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

pytestmark = pytest.mark.xdist_group("wheel")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel; needs no network and leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    # What an earlier build left in build/ would go into the wheel: build elsewhere.
    extra = folder / "extra.cfg"
    extra.write_text(f"[build]\nbuild_base={folder / 'build'}\n[egg_info]\negg_base={folder}\n")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        env={**os.environ, "DIST_EXTRA_CONFIG": str(extra)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def names(wheel: Path) -> set[str]:
    """Files in the wheel outside its metadata."""
    listed = zipfile.ZipFile(wheel).namelist()
    return {name for name in listed if ".dist-info/" not in name}


def expected() -> set[str]:
    """Every file of the rooms, under the name that it has in the wheel."""
    return {
        f"{package.replace('.', '/')}/{file.relative_to(ROOT / folder).as_posix()}"
        for package, folder in PYPROJECT["tool"]["setuptools"]["package-dir"].items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file()
        and file.suffix != ".pyc"
        and not any(part.startswith(".") for part in file.relative_to(ROOT).parts)
    }


def test_wheel_holds_every_module_and_data_file(names: set[str]):
    missing = expected() - names
    assert not missing, f"add to packages or package-data in pyproject.toml: {sorted(missing)}"
    assert "mlxray/py.typed" in names


def test_wheel_holds_nothing_else(names: set[str]):
    assert names - expected() == set()


def test_entry_points_are_those_of_pyproject(wheel: Path):
    built = configparser.ConfigParser()
    built.optionxform = str  # type: ignore[assignment,method-assign]
    built.read_string(_metadata(wheel, "entry_points.txt"))
    assert dict(built["console_scripts"]) == PYPROJECT["project"]["scripts"]
    group = dict(built["mlxray"]) if "mlxray" in built else {}
    assert group == PYPROJECT["project"]["entry-points"]["mlxray"]


def test_metadata(wheel: Path):
    lines = _metadata(wheel, "METADATA").splitlines()
    assert "License-Expression: MIT" in lines
    assert "Requires-Python: >=3.11" in lines
    extras = {line.split(": ")[1] for line in lines if line.startswith("Provides-Extra")}
    assert extras >= {"cpu", "cuda12", "cuda13", "circuitsvis", "web", "test", "docs"}
    required = [line for line in lines if line.startswith("Requires-Dist") and "extra" not in line]
    assert "Requires-Dist: mlx>=0.32.2" in required
    assert not [line for line in required if "mlx-cpu" in line or "mlx-cuda" in line]
    assert "MIT License" in _metadata(wheel, "licenses/LICENSE")


def test_wheel_is_small(wheel: Path):
    # The embedded model is 4 MB of it, its dictionaries 2.6.
    assert wheel.stat().st_size < 8_000_000


def _metadata(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [n for n in archive.namelist() if n.endswith(f".dist-info/{name}")]
        return archive.read(path).decode()
