"""Generated tokens equal mlx-lm's own and those of a plain loop, with edits too."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.sample_utils import make_logits_processors, make_sampler

from mlxray import InterpretableModel
from mlxray.generation import Where
from mlxray.interventions import add_vector, scale, zero_out

COUNT = 12


def vector(model: InterpretableModel, size: float = 2.0) -> mx.array:
    width = model.activations([1], ["layers.0.resid_post"])["layers.0.resid_post"].shape[-1]
    return size * mx.random.normal((width,), key=mx.random.key(5))


def test_greedy_is_mlx_lm_to_the_bit(model: InterpretableModel, prompt: list[int]):
    expected = list(generate_step(mx.array(prompt), model.model, max_tokens=COUNT))
    found = model.generate(prompt, COUNT, keep_logits=True)
    assert found.tokens == [token for token, _ in expected]
    logits = found.token_logits
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    assert mx.array_equal(logprobs, mx.stack([row for _, row in expected])).item()
    own = [row[t].item() for (t, row) in expected]
    assert found.logprobs == own
    assert mx.abs(logits[0] - logits[-1]).max().item() > 0.1  # or the test would see little


def test_watching_changes_nothing(model: InterpretableModel, prompt: list[int]):
    points = [(p, layer) for layer in (0, 1) for p in ("resid_pre", "resid_post", "z", "pattern")]
    windows = model.adapter.name.startswith(("llama", "gemma3"))
    if windows:
        points = [p for p in points if p[0] != "pattern"]
    bare = model.generate(prompt, COUNT, keep_logits=True)
    watched = model.generate(prompt, COUNT, keep_logits=True, watch=points)
    assert mx.array_equal(bare.token_logits, watched.token_logits).item()


@pytest.mark.parametrize(
    ("sampling", "processors"),
    [
        ({"temp": 0.9}, {}),
        ({"temp": 1.3, "top_k": 7}, {}),
        ({"temp": 1.3, "top_p": 0.7}, {}),
        ({"temp": 1.3, "min_p": 0.1}, {}),
        ({"temp": 0.0}, {"repetition_penalty": 1.5, "repetition_context_size": 6}),
        ({"temp": 1.0, "top_k": 20, "top_p": 0.9}, {"repetition_penalty": 2.0}),
    ],
)
def test_sampling_is_mlx_lms(
    models: dict[str, InterpretableModel],
    prompt: list[int],
    sampling: dict[str, Any],
    processors: dict[str, Any],
):
    model = models["llama"]
    mx.random.seed(11)
    expected = generate_step(
        mx.array(prompt),
        model.model,
        max_tokens=COUNT,
        sampler=make_sampler(**sampling),
        logits_processors=make_logits_processors(**processors),
    )
    tokens = [token for token, _ in expected]
    options = {
        "temperature": sampling["temp"],
        "top_k": sampling.get("top_k", 0),
        "top_p": sampling.get("top_p", 1.0),
        "min_p": sampling.get("min_p", 0.0),
        "repetition_penalty": processors.get("repetition_penalty"),
        "repetition_context": processors.get("repetition_context_size", 20),
    }
    mx.random.seed(11)
    assert model.generate(prompt, COUNT, **options).tokens == tokens


PLACES = {
    "everywhere": Where(),
    "prompt": Where(generated=False),
    "generated": Where(prompt=False),
    "last of the prompt": Where(positions=[-1]),
    "two positions": Where(positions=[2, 9]),
    "first step": Where(steps=[0]),
    "later steps": Where(steps=range(2, 5)),
    "one of the prompt's": Where(positions=range(3, 20), generated=False),
}


def acts(name: str, position: int, prompt: int) -> bool:
    """What the names above mean, said anew."""
    return {
        "everywhere": True,
        "prompt": position < prompt,
        "generated": position >= prompt,
        "last of the prompt": position == prompt - 1,
        "two positions": position in (2, 9),
        "first step": position < prompt,
        "later steps": position - prompt in (1, 2, 3),
        "one of the prompt's": 3 <= position < prompt,
    }[name]


@pytest.mark.parametrize("name", PLACES)
def test_edits_as_in_a_plain_loop(
    model: InterpretableModel, prompt: list[int], plain_greedy: Any, name: str
):
    added = vector(model)

    def change(hidden: mx.array, position: int) -> mx.array:
        return hidden + added if acts(name, position, len(prompt)) else hidden

    tokens, logits = plain_greedy(model.model, prompt, COUNT, 0, change)
    edits = {"layers.0": PLACES[name].edit(add_vector(added))}
    for use_cache in (True, False):
        found = model.generate(
            prompt, COUNT, interventions=edits, use_cache=use_cache, keep_logits=True
        )
        assert found.tokens == tokens
        error = mx.abs(found.token_logits - mx.stack(logits)).max().item()
        assert error < 2e-4
        (report,) = found.edits
        assert report.changed > 0
        assert report.largest_change == pytest.approx(mx.abs(added).max().item(), rel=1e-3)
    plain, _ = plain_greedy(model.model, prompt, COUNT)
    bare = model.generate(prompt, COUNT, keep_logits=True)
    assert bare.tokens == plain
    last = mx.abs(bare.token_logits - mx.stack(logits))
    assert last[-1].max().item() > 1e-2 or tokens != plain  # the edit is one that is seen


def squeezed(scores: mx.array) -> mx.array:
    """Not a scale, which a norm behind would undo; what is masked stays masked."""
    return mx.where(scores < -1e9, scores, mx.tanh(scores))


POINTS = ("q", "k", "v", "z", "scores", "pattern", "attn_out", "resid_mid", "mlp_act", "head_out")


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("where", [Where(), Where(positions=[1, 4, 9])], ids=["all", "three"])
def test_cached_is_uncached_at_every_point(
    models: dict[str, InterpretableModel], prompt: list[int], point: str, where: Where
):
    watch = ["layers.0.resid_post"]
    for family in ("llama", "gemma2"):
        model = models[family]
        edits = {f"layers.0.{point}": where.edit(mx.tanh if point != "scores" else squeezed)}
        cached, again = (
            model.generate(prompt, COUNT, interventions=edits, watch=watch, use_cache=use_cache)
            for use_cache in (True, False)
        )
        assert cached.tokens == again.tokens
        bare = model.generate(prompt, COUNT, watch=watch)
        effects = []
        for step in range(COUNT):
            a, b, c = (r.activation(("resid_post", 0), step) for r in (cached, again, bare))
            assert a.shape == b.shape
            assert mx.abs(a - b).max().item() < 2e-4
            effects.append(mx.abs(a - c).max().item())
        assert effects[0] > 1e-3


def test_planted_bias_of_the_logits_is_what_comes(model: InterpretableModel, prompt: list[int]):
    def push(logits: mx.array) -> mx.array:
        return logits + 1000.0 * (mx.arange(logits.shape[-1]) == 42)

    where = Where(steps=[1, 3])
    found = model.generate(prompt, 5, interventions={"logits": where.edit(push)})
    bare = model.generate([*prompt, found.tokens[0], 42], 1)
    assert found.tokens[1] == found.tokens[3] == 42
    assert found.tokens[0] == model.generate(prompt, 1).tokens[0]
    assert found.tokens[2] == bare.tokens[0]


def test_several_edits_at_one_address(models: dict[str, InterpretableModel], prompt: list[int]):
    model = models["llama"]
    pairs = [("layers.0", scale(2.0)), (("resid_post", 0), Where(prompt=False).edit(zero_out))]
    both = model.generate(prompt, 6, interventions=pairs, watch=["layers.0.resid_post"])
    values = both.activations["layers.0.resid_post"]
    assert mx.abs(values[0]).min().item() > 0
    assert all(not value.any().item() for value in values[1:])


def test_a_prompt_in_pieces(
    models: dict[str, InterpretableModel], prompt: list[int], monkeypatch: pytest.MonkeyPatch
):
    from mlxray.generation import passes

    model = models["llama"]
    where = Where(positions=[0, 3, 5, 6]).edit(scale(3.0))
    options: dict[str, Any] = {
        "interventions": {"layers.0": where},
        "watch": ["layers.1.pattern", "layers.1.k", "layers.1"],
        "keep_logits": True,
    }
    whole = model.generate(prompt, 4, **options)
    monkeypatch.setattr(passes, "PIECE", 3)
    pieces = model.generate(prompt, 4, **options)
    assert whole.tokens == pieces.tokens
    assert mx.allclose(whole.token_logits, pieces.token_logits, atol=1e-4).item()
    for key, values in whole.activations.items():
        for a, b in zip(values, pieces.activations[key], strict=True):
            assert a.shape == b.shape
            assert mx.allclose(a, b, atol=1e-5).item()


def test_continuing_from_a_cache(models: dict[str, InterpretableModel], prompt: list[int]):
    from mlx_lm.models.cache import make_prompt_cache

    model = models["llama"]
    cache = make_prompt_cache(model.model)
    model.model(mx.array([prompt[:5]]), cache=cache)
    edits = {"layers.0": Where(positions=[6]).edit(scale(3.0))}
    found = model.generate(prompt[5:], 6, prompt_cache=cache, interventions=edits)
    assert found.tokens == model.generate(prompt, 6, interventions=edits).tokens
    assert cache[0].offset == len(prompt) + 5
