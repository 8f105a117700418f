"""finish_from: the model's own tail, without its blocks."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxray import Adapter, InterpretableModel
from mlxray.errors import InputError, PointAbsent

from .conftest import VOCABULARY
from .reference import forward, numbers
from .test_values import bend, close

pytestmark = pytest.mark.floats

IDS = [3, 5, 7, 2]


def by_hand(model: Any, residual: np.ndarray, normed: bool = True) -> np.ndarray:
    """The tail in NumPy: put the residual behind the last block of the oracle."""
    layers = len(model.layers)
    edits: dict[Any, Any] = {("resid_post", layers - 1): lambda _: residual}
    if not normed:
        edits["final_norm"] = lambda _: residual
    batch, tokens, _ = residual.shape
    return forward(model, np.zeros((batch, tokens), dtype=int), edits)[0]


@pytest.mark.parametrize("shape", [(1, 4), (3, 2), (1, 1), (2, 16)], ids=str)
def test_any_residual_gives_the_tails_logits(
    any_model: InterpretableModel, shape: tuple[int, int], untouched: Any
) -> None:
    untouched(any_model.model)
    width = any_model.activations(IDS, ["embed"])["embed"].shape[-1]
    residual = bend((*shape, width))
    here = mx.array(residual, dtype=mx.float32)
    close(any_model.finish_from(here), by_hand(any_model.model, residual))
    close(
        any_model.finish_from(here, skip_norm=True),
        by_hand(any_model.model, residual, normed=False),
    )


def test_the_last_residual_gives_the_models_logits_to_the_bit(
    any_model: InterpretableModel,
) -> None:
    last = any_model.layout.n_layers - 1
    residual = any_model.activations(IDS, [("resid_post", last)])["resid_post", last]
    assert mx.array_equal(any_model.finish_from(residual), any_model.model(mx.array([IDS])))


def test_more_positions_than_the_model_has(gpt2_model: InterpretableModel) -> None:
    """The tail looks at no position, so sixteen learned ones are no limit."""
    residual = bend((1, 40, 12))
    got = gpt2_model.finish_from(mx.array(residual, dtype=mx.float32))
    for start in (0, 16, 24):
        close(
            got[:, start : start + 16], by_hand(gpt2_model.model, residual[:, start : start + 16])
        )


def test_another_norm(llama_model: InterpretableModel) -> None:
    residual = mx.array(bend((1, 3, 16)), dtype=mx.float32)
    head = numbers(llama_model.model.lm_head.weight)
    got = llama_model.finish_from(residual, final_norm=lambda x: 2 * x)
    close(got, 2 * numbers(residual) @ head.T)
    norm = nn.RMSNorm(16)
    expected = llama_model.finish_from(norm(residual), skip_norm=True)
    assert mx.allclose(llama_model.finish_from(residual, final_norm=norm), expected, atol=1e-5)


def test_no_block_is_computed(make: Any) -> None:
    raw = make.llama()
    called: list[int] = []

    class Counting(type(raw.model.layers[0])):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            called.append(1)
            return super().__call__(*args, **kwargs)

    for layer in raw.model.layers:
        layer.__class__ = Counting
    model = InterpretableModel(raw)
    model.finish_from(mx.zeros((1, 2, 16)))
    assert not called
    model.run_with_hooks(IDS)
    assert len(called) == 3


class NoNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.layers = [nn.Linear(8, 8)]

    def __call__(self, tokens: mx.array) -> mx.array:
        return self.embed.as_linear(self.layers[0](self.embed(tokens)))


def test_a_model_without_a_final_norm(make: Any) -> None:
    model = InterpretableModel(
        make.randomised(NoNorm()),
        adapter=Adapter("bare", embed="embed", layers="layers", final_norm="norm"),
    )
    residual = mx.array(bend((1, 2, 8)), dtype=mx.float32)
    expected = numbers(residual) @ numbers(model.model.embed.weight).T
    close(model.finish_from(residual), expected)
    close(model.finish_from(residual, skip_norm=True), expected)
    assert len(model.get_token_predictions(residual[0, 0], top_k=3)) == 3
    with pytest.raises(PointAbsent, match="final_norm"):
        model.finish_from(residual, final_norm=lambda x: x)


@pytest.mark.parametrize("shape", [(16,), (2, 16), (1, 1, 1, 16)], ids=str)
def test_residuals_of_another_shape(
    llama_model: InterpretableModel, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match=r"\(batch, tokens, width\)"):
        llama_model.finish_from(mx.zeros(shape))


# get_token_predictions


def test_predictions_rank_the_heads_scores(any_model: InterpretableModel) -> None:
    width = any_model.activations(IDS, ["embed"])["embed"].shape[-1]
    rows = bend((3, width))
    logits = by_hand(any_model.model, rows[:, None], normed=False)[:, 0]
    hidden = mx.array(rows, dtype=mx.float32)
    found = any_model.get_token_predictions(hidden, top_k=5)
    assert found == np.argsort(-logits, axis=-1)[:, :5].tolist()
    assert any_model.get_token_predictions(hidden[0], top_k=5) == found[0]
    scored = any_model.get_token_predictions(hidden, top_k=5, return_scores=True)
    for row, pairs in enumerate(scored):
        assert [token for token, _ in pairs] == found[row]
        close(np.array([score for _, score in pairs]), logits[row][found[row]])
    assert len(any_model.get_token_predictions(hidden[0])) == 10
    assert len(any_model.get_token_predictions(hidden[0], top_k=VOCABULARY)) == VOCABULARY


def test_predictions_by_other_heads(llama_model: InterpretableModel) -> None:
    hidden = mx.array(bend((16,)), dtype=mx.float32)
    embedding = llama_model.model.model.embed_tokens
    other = nn.Linear(16, 7)
    tied = np.argsort(-(numbers(embedding.weight) @ numbers(hidden)))[:4].tolist()
    assert llama_model.get_token_predictions(hidden, 4, embedding_layer=embedding) == tied
    own = mx.argsort(-other(hidden))[:4].tolist()
    both = llama_model.get_token_predictions(hidden, 4, embedding_layer=embedding, lm_head=other)
    assert both == own
    quantised = nn.QuantizedEmbedding.from_embedding(nn.Embedding(9, 64), group_size=32)
    wide = mx.ones((64,))
    found = llama_model.get_token_predictions(wide, 2, embedding_layer=quantised)
    # As a matrix: MLX's CUDA backend multiplies no packed weights with a vector.
    assert found == mx.argsort(-quantised.as_linear(wide[None])[0])[:2].tolist()


@pytest.mark.parametrize("top_k", [0, -1, VOCABULARY + 1])
def test_too_many_or_too_few_predictions(llama_model: InterpretableModel, top_k: int) -> None:
    with pytest.raises(InputError, match=f"between 1 and {VOCABULARY}"):
        llama_model.get_token_predictions(mx.zeros((16,)), top_k)
    with pytest.raises(InputError, match=r"\(D,\) or \(B, D\)"):
        llama_model.get_token_predictions(mx.zeros((1, 2, 16)))
