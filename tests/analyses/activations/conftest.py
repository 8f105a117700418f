"""One small store, and what it was harvested from."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlxray import InterpretableModel
from mlxray.analyses.activations import ActivationStore, harvest

WORDS = "The capital of France is Paris . Anna gave Tom the book and he went home again".split()
POINTS = ["layers.1.resid_post", "layers.2.mlp.input", "layers.0.z"]
SMALL: dict[str, Any] = {
    "context": 16,
    "batch_size": 5,
    "tokens_per_shard": 128,
    "verbose": False,
}


def some_texts(count: int = 40, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 30))) for _ in range(count)]


def digest(folder: Path) -> dict[str, str]:
    """Name → hash of every file of a store; also shows that nothing unfinished lies about."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


@pytest.fixture(scope="session")
def pocket() -> InterpretableModel:
    return InterpretableModel("pocket")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return some_texts()


@pytest.fixture(scope="session")
def store(
    pocket: InterpretableModel, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> ActivationStore:
    """Read it, do not change it."""
    return harvest(pocket, texts, POINTS, tmp_path_factory.mktemp("store") / "s", **SMALL)


@pytest.fixture
def make(
    pocket: InterpretableModel, texts: list[str], tmp_path: Path
) -> Callable[..., ActivationStore]:
    """Harvest in a folder of this test's own."""

    def made(
        name: str = "s", given: Any = None, points: Any = None, **more: Any
    ) -> ActivationStore:
        points = POINTS[:1] if points is None else points
        source = texts if given is None else given
        return harvest(pocket, source, points, tmp_path / name, **{**SMALL, **more})

    return made
