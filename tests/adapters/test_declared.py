"""What adapters declare, beside what looking at a small random model of the family finds."""

import dataclasses
from typing import Any

import pytest

from mlxray import registry
from mlxray.errors import AddressError
from mlxray.loading.choose import choose_adapter
from mlxray.points.layout import Layout
from mlxray.points.places import place
from mlxray.points.vocabulary import POINTS
from mlxray.testing.zoo import CONFIGS, UNBUILDABLE, small_model

#: Families that know more than looking can tell, each with what it knows.
KNOW_MORE = {
    "deepseek_v41": "several residual streams",
    "gemma3n": "several residual streams",
    "gemma4": "what the MLP adds, although the block goes on",
    "gemma4_text": "what the MLP adds, although the block goes on",
    "iquestloopcoder": "blocks that are never called",
    "kimi_k3/residual-attention": "attention over earlier blocks",
    "phi3small": "heads of one fused projection",
    "plamo3": "a cache that is one key short",
}

NAMES = [
    name
    for name in CONFIGS
    if name.removesuffix("/4-bit") not in KNOW_MORE
    and name.partition("/")[0] not in (*UNBUILDABLE, "gemma4_text")
]


def sites(layout: Layout) -> dict[Any, Any]:
    """Every point of every layer: where it is, or that it is absent."""
    found: dict[Any, Any] = {}
    for name, point in POINTS.items():
        for layer in range(layout.n_layers) if point.per_layer else [None]:
            try:
                site = dataclasses.asdict(place(layout, name, layer))
            except AddressError:
                site = {}
            if "factor" in site:
                site["factor"] = pytest.approx(site["factor"], rel=1e-6)
            if "adds" in site:
                site["adds"] = [(p, pytest.approx(f, rel=1e-6)) for p, f in site["adds"]]
            found[name, layer] = site
    return found


@pytest.mark.parametrize("name", NAMES)
def test_declared_is_what_is_found(name: str):
    model = small_model(name)
    declared = choose_adapter(model)
    if declared.name == "structural":
        pytest.skip("nothing is declared: this family is left to the finder")
    found = registry.get("adapter", "structural").find(model, None)
    ours, theirs = Layout(model, declared), Layout(model, found)
    assert ours.n_layers == theirs.n_layers
    assert sites(ours) == sites(theirs)
    for layer in range(ours.n_layers):
        mine, its = ours.roles(layer), theirs.roles(layer)
        assert (mine.attn_norm, mine.mlp_norm) == (its.attn_norm, its.mlp_norm)
        assert set(mine.departures) == set(its.departures)
    for fact in ("embed", "positions", "returns", "stream"):
        assert getattr(declared, fact) == getattr(found, fact), fact


def test_no_two_adapters_claim_a_family():
    claimed: dict[str, str] = {}
    for adapter in registry.all("adapter"):
        for name in getattr(adapter, "model_types", ()):
            assert claimed.setdefault(name, adapter.name) == adapter.name
