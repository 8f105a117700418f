"""What cannot be answered is refused, with a typed error, before any patched run."""

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.datasets.generators import greater_than
from mlxray.errors import AddressError, AnalysisError, InputError, PluginError

from ..models import CLEAN, CORRUPTED, small_llama

pytestmark = pytest.mark.floats

BASE = {
    "activation_patching": {},
    "attribution_patching": {},
    "attribution_map": {},
    "edge_attribution_patching": {"metric": "l2"},
    "path_patching": {"sender": "embed", "receiver": "m1"},
    "acdc": {},
}
#: Runs of the two prompts, and one more to know an activation's shape or what is ablated.
PLAIN_RUNS = 3
NAN = float("nan")
TOKENS = {"correct_token": 1, "incorrect_token": 1}


@pytest.fixture(scope="module")
def model():
    return small_llama()


def refuse(model, monkeypatch, name, error, message, options):
    runs = []
    kind = type(model.model)
    forward = kind.__call__

    def counted(self, *args, **kwargs):
        runs.append(1)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(kind, "__call__", counted)
    call = {"clean": CLEAN, "corrupted": CORRUPTED, **BASE[name], **options}
    with pytest.raises(error, match=message):
        getattr(model, name)(**call)
    assert len(runs) <= PLAIN_RUNS


EVERYWHERE = [
    ({"corrupted": CLEAN}, InputError, "same prompt"),
    ({"corrupted": CORRUPTED[:-1]}, InputError, "equal length"),
    ({"clean": []}, InputError, "empty"),
    ({"position": 99}, InputError, "no position 99"),
    # Causal: what comes later changes nothing at the first position.
    ({"position": 0}, (InputError, AnalysisError), "the same"),
    ({"metric": "l3"}, PluginError, "Did you mean 'l2'"),
    ({"metric": None}, InputError, "metric is .*got None"),
    ({"metric": lambda patched, clean, corrupted: NAN}, InputError, "NaN"),
    (
        {"metric": "logit_diff", "metric_kwargs": {"correct_token": [1, 2], "incorrect_token": 3}},
        InputError,
        r"gives shape \(2,\)",
    ),
    ({"metric_kwargs": {1: 2}}, InputError, "keywords of a metric are texts; got 1"),
    ({"metric": "logit_diff"}, InputError, "'correct_token' and 'incorrect_token'"),
    ({"metric": "prob_diff"}, InputError, "'correct_tokens' and 'incorrect_tokens'"),
    ({"metric": "l2", "metric_kwargs": {"to": 1}}, InputError, "'to'"),
    ({"metric": "logit_diff", "metric_kwargs": TOKENS}, AnalysisError, "nothing to recover"),
    (
        {"metric": "logit_diff", "metric_kwargs": {**TOKENS, "correct_token": 10**6}},
        InputError,
        "outside the vocabulary",
    ),
]


@pytest.mark.parametrize("name", BASE)
@pytest.mark.parametrize(("options", "error", "message"), EVERYWHERE)
def test_every_method(model, monkeypatch, name, options, error, message):
    refuse(model, monkeypatch, name, error, message, options)


@pytest.mark.parametrize(
    "name", ["activation_patching", "attribution_patching", "attribution_map", "acdc"]
)
def test_layers(model, monkeypatch, name):
    refuse(model, monkeypatch, name, InputError, "list of layers is empty", {"layers": []})
    refuse(model, monkeypatch, name, AddressError, "no layer 99", {"layers": [99]})
    refuse(model, monkeypatch, name, InputError, r"such as \[1\]; got 1", {"layers": 1})


@pytest.mark.parametrize("name", ["activation_patching", "attribution_patching"])
@pytest.mark.parametrize(
    ("component", "error", "message"),
    [
        ("mpl", AddressError, "Did you mean 'layers.0.mlp'"),
        ("", InputError, "a component is a name"),
        (7, InputError, "component is text; got 7"),
        ("layers.1.mlp", InputError, r"component='mlp', layers=\[1\]"),
        ("layers.1", InputError, r"component='resid_post', layers=\[1\]"),
        ("embed", AddressError, "causal_trace"),
        ("logits", AddressError, "whole model"),
    ],
)
def test_components(model, monkeypatch, name, component, error, message):
    refuse(model, monkeypatch, name, error, message, {"component": component})


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("activation_patching", {"budget": 0}, InputError, "number of bytes"),
        ("activation_patching", {"by": "feature"}, InputError, "dictionary"),
        ("activation_patching", {"by": "heads"}, InputError, "by is one of"),
        ("activation_patching", {"positions": []}, InputError, "positions is empty"),
        ("activation_patching", {"source": "mean"}, InputError, "needs reference"),
        ("attribution_patching", {"verify_top": -1}, InputError, "0 for none"),
        ("attribution_map", {"components": []}, InputError, "at least one component"),
        ("edge_attribution_patching", {"steps": 0}, InputError, "steps"),
        ("edge_attribution_patching", {"steps": 2.5}, InputError, "steps"),
        ("path_patching", {"sender": 3}, InputError, "got 3"),
        ("path_patching", {"sender": []}, InputError, "at least one sender"),
        ("path_patching", {"sender": "a9.h9"}, AddressError, "Did you mean"),
        ("path_patching", {"sender": "m1", "receiver": "a0.h0"}, InputError, "comes after"),
        ("acdc", {"threshold": -0.1}, InputError, "threshold"),
        ("acdc", {"threshold": NAN}, InputError, "threshold"),
        ("acdc", {"components": []}, InputError, "components are"),
        ("acdc", {"ablation": "none"}, InputError, "ablation is one of"),
    ],
)
def test_one_method(model, monkeypatch, name, options, error, message):
    refuse(model, monkeypatch, name, error, message, options)


class Identity:
    """As many features as the stream is wide, or some more or fewer on either side."""

    def __init__(self, encoded=32, decoded=32):
        self.down, self.up = mx.eye(encoded, 40), mx.eye(40, decoded)

    def encode(self, activation):
        return activation @ self.down

    def decode(self, features):
        return features @ self.up


@pytest.mark.parametrize(
    ("dictionary", "features", "message"),
    [
        (Identity(), [], "features is empty"),
        (Identity(), [40], "no feature 40: the dictionary has 40"),
        (Identity(), [-1], "no feature -1"),
        (Identity(encoded=35), None, "of width 32"),
        (Identity(decoded=35), None, "vectors of width 35"),
    ],
)
def test_dictionaries(model, monkeypatch, dictionary, features, message):
    options = {"component": "resid_post", "by": "feature"}
    options |= {"dictionary": dictionary, "features": features}
    refuse(model, monkeypatch, "activation_patching", InputError, message, options)


def test_answers_of_several_pieces():
    pocket = InterpretableModel("pocket")
    run = {"clean": "The capital of France is", "corrupted": "The capital of Italy is"}
    for options in (
        {
            "metric": "logit_diff",
            "metric_kwargs": {"correct_token": " xyzzy", "incorrect_token": " Rome"},
        },
        {
            "metric": "prob_diff",
            "metric_kwargs": {"correct_tokens": [" Paris", " xyzzy"], "incorrect_tokens": [1]},
        },
    ):
        with pytest.raises(InputError, match="' xyzzy' is 6 tokens"):
            pocket.activation_patching(**run, **options)


def test_the_last_pair_is_checked_before_the_first_is_patched(model, monkeypatch):
    from mlxray.analyses.patching.sweep import Sweep

    def sweeping(*args, **kwargs):
        raise AssertionError("a sweep began")

    monkeypatch.setattr(Sweep, "effects", sweeping)
    ends = [[*CLEAN[:-1], 3], [*CORRUPTED[:-1], 3]]
    asked = []

    def fails_late(patched, clean, corrupted):
        asked.append(1)
        return NAN if len(asked) > 4 else mx.max(patched).item()

    with pytest.raises(InputError, match="NaN"):
        model.activation_patching([CLEAN, ends[0]], [CORRUPTED, ends[1]], metric=fails_late)


def test_pairs_without_the_answers_that_a_metric_needs():
    pocket = InterpretableModel("pocket")
    with pytest.raises(InputError, match="48 and 52"):
        pocket.activation_patching(greater_than(2), metric="logit_diff")
