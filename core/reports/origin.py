"""Where a result comes from: what makes it again, and what it was made with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..cli.written import command_of
from ..results.base import AnalysisResult
from ..results.made import call_of

PACKAGES = ("mlxray", "mlx", "mlx-lm", "numpy")

#: Parameters that decide what is drawn at random.
SEEDS = ("seed", "seeds", "random_state")


@dataclass(frozen=True)
class Origin:
    """What makes a result again.

    Attributes:
        model: The model's name, if it is known.
        code: Lines of Python.
        command: A line for a shell; None where only Python can make the result.
        seeds: Parameters that decide what is drawn, by name.
        seconds: How long it took, if it is known.
        digest: SHA-256 of the result's data as JSON: the same for the same numbers.
    """

    model: str | None
    code: str | None
    command: str | None
    seeds: dict[str, Any]
    seconds: float | None
    digest: str


def origin_of(result: AnalysisResult) -> Origin:
    """What is known of a result's making."""
    model, seconds = result.metadata.get("model"), result.metadata.get("seconds")
    given = result.metadata.get("parameters")
    call = call_of(result)
    name = model if isinstance(model, str) else None
    begin = f"model = InterpretableModel({(name or '…')!r})"
    lines = ["from mlxray import InterpretableModel", "", begin, f"result = {call}"]
    parameters = given if isinstance(given, Mapping) else {}
    return Origin(
        model=name,
        code="\n".join(lines) if call is not None else None,
        command=command_of(result),
        seeds={key: parameters[key] for key in SEEDS if parameters.get(key) is not None},
        seconds=seconds if isinstance(seconds, (int, float)) else None,
        digest=hashlib.sha256(data_json(result).encode("utf-8")).hexdigest(),
    )


def data_json(result: AnalysisResult) -> str:
    """The result's own data as JSON, without when and how long."""
    import json

    from ..results.base import plain

    text = json.dumps(plain(result.data), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def versions() -> dict[str, str]:
    """What is installed here, and on what."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"platform": platform.platform()}
