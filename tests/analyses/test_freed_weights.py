"""A model that nobody uses gives its memory back at once, without the garbage collector."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import ref

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.analyses import steering
from mlxray.loading.load import load
from mlxray.seams import instrument

from .every_analysis import CALLS, CHAT, FRANCE, ITALY


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def trace(model: InterpretableModel) -> None:
    with model.trace(FRANCE) as made:
        model.layers[1].output *= 2
        model.layers[2].output.save()
    _ = made.activations["layers.1.pattern"]


def broken(model: InterpretableModel) -> None:
    with suppress(ValueError):
        model.run_with_hooks(FRANCE, [("layers.0", lambda _: None)])


def broken_trace(model: InterpretableModel) -> None:
    with suppress(KeyboardInterrupt), model.trace(FRANCE):
        model.layers[1].output.save()
        raise KeyboardInterrupt


def conversation(model: InterpretableModel) -> None:
    with model.conversation_trace(CHAT) as made:
        pass
    made.cross_turn_attention(1)


def vector(model: InterpretableModel) -> Any:
    return steering.steering_vector(model, [FRANCE], [ITALY], layers=[1])


#: Each returns what may outlive the model.
USES: dict[str, Callable[[InterpretableModel], Any]] = {
    "wrapped": lambda m: None,
    "a proxy": lambda m: repr(m.layers[0].self_attn),
    "trace": trace,
    "an error": broken,
    "a trace that was broken off": broken_trace,
    "a conversation": conversation,
    "everything": lambda m: m.run_with_cache(FRANCE)[0],
    "edits": lambda m: m.run_with_hooks(FRANCE, [(("pattern", 1), iv.scale(0.5))]),
    "gradients": lambda m: m.gradients(FRANCE, lambda x: x.sum(), ["layers.1"]),
    "points": lambda m: m.points(),
    "generation": lambda m: m.generate(FRANCE, max_tokens=2),
    "a stream that was left": lambda m: next(m.stream_generate(FRANCE, max_tokens=3)),
    "a batch": lambda m: m.generate_batch([FRANCE, ITALY], max_tokens=2),
    "vector": vector,
    "steered": lambda m: m.generate(FRANCE, max_tokens=2, interventions=vector(m).at(0.5)),
    "probe": lambda m: steering.contrast_probe(m, [FRANCE], [ITALY], layer=1),
    "weights": lambda m: steering.orthogonalize_weights(m, mx.ones(128)).undo(),
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("kind", ["uses", "analyses"])
def test_weights_go_with_the_model(kind: str, tmp_path: Path) -> None:
    """All on one model, which is quick; what kept it is among the referrers."""
    net, tokenizer = load("pocket")
    model = InterpretableModel(net, tokenizer=tokenizer)
    kept = {}
    for name, call in (USES if kind == "uses" else CALLS).items():
        kept[name] = call(model, *([tmp_path] if name.startswith("load_") else []))
    if kind == "analyses":
        del kept["causal_trace"]  # it can be asked for more runs, so it has the model
    seen = ref(net)
    del net, model, call
    assert seen() is None, [type(holder) for holder in gc.get_referrers(seen())]
    assert not instrument._swapped


#: As torch does, which transformers imports where it is there.
KEEPS_FRAMES = """
import gc, sys, weakref
import mlxray
kept = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("transformers"):
            kept.append(sys._getframe())
sys.meta_path.insert(0, Finder())
gc.disable()
model = mlxray.InterpretableModel("pocket")
seen = weakref.ref(model.model)
del model
assert kept
print(seen() is None)
"""


def test_an_import_that_keeps_frames_does_not_keep_the_model() -> None:
    command = [sys.executable, "-c", KEEPS_FRAMES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "True", done.stderr
