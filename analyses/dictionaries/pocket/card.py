"""The card of the embedded model's dictionaries: their numbers, and features with evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlxray import InterpretableModel
from mlxray.display import show_text
from mlxray.storage.files import write_text

from ..evaluate import evaluate_dictionary
from ..types.dictionary import Dictionary
from .evidence import find_evidence
from .recipe import Recipe

#: Features of each dictionary on the card, and the largest share of tokens that one is on at.
FEATURES, MOST = 10, 0.02
MEASURES = (
    "loss_recovered",
    "loss_recovered_from_mean",
    "explained_variance",
    "l0",
    "dead",
    "loss_clean",
    "loss_spliced",
    "loss_zero",
    "loss_mean",
    "tokens",
)

_HEAD = """\
# Dictionaries of pocket

Of each layer an autoencoder of the residual stream (`pocket:layers.N.resid_post`) and a transcoder
of the MLP (`pocket:layers.N.mlp`: it reads `layers.N.mlp.input` and writes `layers.N.mlp_out`).
Trained as BatchTopK with k = {k}, all on the same {tokens:,} tokens of the text that pocket itself
learnt from, and stored in half precision in SAELens' layout.

Measured on {measured:,} tokens of fresh text, with what the files hold; the token that begins each
text is neither counted nor replaced. *Dead* are features that none of these tokens turns on. Losses
are in nats per token: of the model, and with the dictionary's output in place.

{table}

`python -m mlxray.analyses.dictionaries.pocket.train` makes the files and this card.

## Features

Ten features of each dictionary: of those that are on at no more than {most:.0%} of tokens the ones
whose absence, where they are strongest, changes most what the model says next. For each: the share
of tokens that it is on at, the tokens that have the most of its activation, and its three strongest
places with the activation, what the model expects next there (→), how sure it is, and how sure it
is without the feature.
"""


def measure(recipe: Recipe, dictionaries: Mapping[str, Dictionary]) -> dict[str, Any]:
    """All numbers and the features, as plain values."""
    model = InterpretableModel("pocket")
    rows = recipe.texts("measuring", recipe.fresh_rows)
    measurements: dict[str, Any] = {"recipe": asdict(recipe), "dictionaries": {}}
    for name, dictionary in dictionaries.items():
        report = evaluate_dictionary(model, dictionary, rows, skip_first=1, verbose=True)
        found = find_evidence(model, dictionary, rows, FEATURES, most=MOST)
        measurements["dictionaries"][name] = {
            "reads": dictionary.reads,
            "writes": dictionary.writes,
            "features": dictionary.n_features,
            "trained_on": dictionary.metadata["training"]["tokens"],
            **{m: _rounded(getattr(report, m)) for m in MEASURES},
            "evidence": [_rounded(asdict(one)) for one in found],
        }
    return measurements


def _rounded(value: Any) -> Any:
    """Numbers with four significant digits; digits beyond them differ between processors."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(inner) for inner in value]
    return value


def card(measurements: dict[str, Any]) -> str:
    """The text of the card, from `measure`."""
    own = measurements["dictionaries"]
    first = next(iter(own.values()))
    head = _HEAD.format(
        k=measurements["recipe"]["k"],
        tokens=first["trained_on"],
        measured=first["tokens"],
        table=table(own),
        most=MOST,
    )
    parts = [head]
    for name, facts in own.items():
        parts.append(f"\n### {name}\n")
        parts += [_feature(one) for one in facts["evidence"]]
    return "".join(parts)


def table(own: dict[str, Any]) -> str:
    """The numbers of all dictionaries as a Markdown table."""
    lines = [
        "| dictionary | features | loss recovered | against the mean | explained variance | L0 | "
        "dead | loss | spliced |",
        "|" + " --- |" * 9,
    ]
    for name, d in own.items():
        lines.append(
            f"| {name} | {d['features']} | {d['loss_recovered']:.1%} "
            f"| {d['loss_recovered_from_mean']:.1%} | {d['explained_variance']:.3f} "
            f"| {d['l0']:.1f} | {d['dead']:.1%} | {d['loss_clean']:.3f} | {d['loss_spliced']:.3f} |"
        )
    return "\n".join(lines)


def _feature(one: dict[str, Any]) -> str:
    tokens = ", ".join(f"{_code(token)} {share:.0%}" for token, share in one["tokens"])
    lines = [f"\n**Feature {one['feature']}**, on at {one['frequency']:.2%} of tokens: {tokens}\n"]
    lines += [
        f"- {e['activation']:.2f} at {_code(e['before'])} **{_code(e['token'])}** → "
        f"{_code(e['next'])} {e['probability']:.0%}, without it {e['without']:.0%}"
        for e in one["examples"]
    ]
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """Text in Markdown, with its spaces and line breaks."""
    shown = show_text(text).replace("|", "\\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def write_card(recipe: Recipe, dictionaries: Mapping[str, Dictionary], folder: Path) -> None:
    """Write ``card.json`` and ``README.md`` beside the dictionaries."""
    measurements = measure(recipe, dictionaries)
    write_text(folder / "card.json", json.dumps(measurements, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", card(measurements))
