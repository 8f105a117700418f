"""Where a result comes from: what makes it again, and what it was made with."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..cli.written import command_of
from ..machine.doctor import PACKAGES, installed_version
from ..results.base import AnalysisResult, plain
from ..results.made import made_by

#: Parameters that decide what is drawn at random.
SEEDS = ("seed", "seeds", "random_state")


@dataclass(frozen=True)
class Origin:
    """What makes a result again.

    Attributes:
        model: The model's name, if it is known.
        call: The call of the analysis, for people; None if no analysis made it.
        code: Lines of Python that make it again; None where they would need what only its maker
            has: an array, a function, a model that was put together in Python.
        command: The same as a line for a shell.
        seeds: Parameters that decide what is drawn, by name.
        seconds: How long it took, if it is known.
        digest: SHA-256 of the result's data as JSON: the same for the same numbers.
    """

    model: str | None
    call: str | None
    code: str | None
    command: str | None
    seeds: dict[str, Any]
    seconds: float | None
    digest: str


def origin_of(result: AnalysisResult) -> Origin:
    """What is known of a result's making."""
    model, seconds = result.metadata.get("model"), result.metadata.get("seconds")
    given, source = result.metadata.get("parameters"), result.metadata.get("loaded_from")
    made = made_by(result)
    parameters = given if isinstance(given, Mapping) else {}
    code = None
    if isinstance(source, str) and made is not None and made.code is not None:
        begin = f"from mlxray import InterpretableModel\n\nmodel = InterpretableModel({source!r})"
        code = f"{begin}\nresult = {made.code}"
    return Origin(
        model=model if isinstance(model, str) else None,
        call=None if made is None else made.caption,
        code=code,
        command=command_of(result),
        seeds={key: parameters[key] for key in SEEDS if parameters.get(key) is not None},
        seconds=seconds if isinstance(seconds, (int, float)) else None,
        digest=hashlib.sha256(data_json(result).encode("utf-8")).hexdigest(),
    )


def data_json(result: AnalysisResult) -> str:
    """The result's own data as JSON, without when and how long."""
    text = json.dumps(plain(result.data), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def versions() -> dict[str, str]:
    """What is installed here, and on what."""
    found = {name: installed_version(name) for name in PACKAGES}
    known = {name: version for name, version in found.items() if version is not None}
    return {"Python": platform.python_version(), **known, "platform": platform.platform()}
