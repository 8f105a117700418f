"""Tiny models with every parameter random, and tokenizers, for the tests of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from hypothesis import settings
from mlx.utils import tree_map
from mlx_lm.models import gemma2, gpt2, llama

from mlxray import InterpretableModel

from .plugin_site import Site

# Times say nothing on a busy machine, and what failed once must fail again.
settings.register_profile("mlxray", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("mlxray")

VOCABULARY = 31


def randomised(model: nn.Module, seed: int = 0, dtype: mx.Dtype = mx.float32) -> nn.Module:
    """The model with every parameter random, norms and biases included."""
    keys = iter(mx.random.split(mx.random.key(seed), 1000))

    def draw(parameter: mx.array) -> mx.array:
        return (0.3 * mx.random.normal(parameter.shape, key=next(keys))).astype(dtype)

    model.update(tree_map(draw, model.parameters()))
    mx.eval(model.parameters())
    model.eval()
    return model


def make_llama(layers: int = 3, seed: int = 0, dtype: mx.Dtype = mx.float32, **more: Any) -> Any:
    """Four query heads on two key/value heads; the middle layer's window is three tokens."""
    kinds = ["full_attention", "sliding_attention"] * layers
    arguments: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": 16,
        "num_hidden_layers": layers,
        "intermediate_size": 24,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "layer_types": kinds[:layers],
        "sliding_window": 3,
    }
    return randomised(llama.Model(llama.ModelArgs(**{**arguments, **more})), seed, dtype)


def make_gpt2(layers: int = 2, seed: int = 0, dtype: mx.Dtype = mx.float32) -> Any:
    """Learned positions (16 of them), biases everywhere, tied output."""
    arguments = gpt2.ModelArgs(
        model_type="gpt2",
        n_ctx=16,
        n_embd=12,
        n_head=3,
        n_layer=layers,
        n_positions=16,
        layer_norm_epsilon=1e-5,
        vocab_size=VOCABULARY,
    )
    return randomised(gpt2.Model(arguments), seed, dtype)


def make_gemma2(layers: int = 2, seed: int = 0, dtype: mx.Dtype = mx.float32) -> Any:
    """Capped scores in a softmax of its own, norms on both sides, capped logits."""
    arguments = gemma2.ModelArgs(
        model_type="gemma2",
        hidden_size=16,
        num_hidden_layers=layers,
        intermediate_size=24,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        rms_norm_eps=1e-5,
        vocab_size=VOCABULARY,
        query_pre_attn_scalar=9.0,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    )
    return randomised(gemma2.Model(arguments), seed, dtype)


MAKERS: dict[str, Callable[..., Any]] = {
    "llama": make_llama,
    "gpt2": make_gpt2,
    "gemma2": make_gemma2,
}


class ToyTokenizer:
    """One token per letter, and a beginning-of-sequence token that `encode` adds."""

    bos_token = "<s>"
    bos_token_id = 1
    vocab_size = VOCABULARY

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = [self.bos_token_id] if add_special_tokens else []
        while text:
            if text.startswith(self.bos_token):
                ids.append(self.bos_token_id)
                text = text[len(self.bos_token) :]
            else:
                ids.append(2 + ord(text[0]) % (VOCABULARY - 2))
                text = text[1:]
        return ids

    def decode(self, ids: list[int]) -> str:
        return "".join(
            "<s>" if i == 1 else chr(97 + (i - 2 - 97 % (VOCABULARY - 2)) % (VOCABULARY - 2))
            for i in ids
        )


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Makers of fresh models, for tests that change them."""
    return SimpleNamespace(**MAKERS, randomised=randomised, tokenizer=ToyTokenizer)


@pytest.fixture(scope="session")
def _shared() -> dict[str, InterpretableModel]:
    return {}


def _get(shared: dict[str, InterpretableModel], family: str) -> InterpretableModel:
    if family not in shared:
        shared[family] = InterpretableModel(MAKERS[family](), tokenizer=ToyTokenizer())
    return shared[family]


@pytest.fixture(scope="session")
def llama_model(_shared: dict[str, InterpretableModel]) -> InterpretableModel:
    """A llama that no test changes."""
    return _get(_shared, "llama")


@pytest.fixture(scope="session")
def gpt2_model(_shared: dict[str, InterpretableModel]) -> InterpretableModel:
    return _get(_shared, "gpt2")


@pytest.fixture(scope="session")
def gemma2_model(_shared: dict[str, InterpretableModel]) -> InterpretableModel:
    return _get(_shared, "gemma2")


@pytest.fixture(scope="session", params=list(MAKERS))
def any_model(
    request: pytest.FixtureRequest, _shared: dict[str, InterpretableModel]
) -> InterpretableModel:
    """Each of the three families in turn; no test changes it."""
    return _get(_shared, request.param)


def state_of(model: nn.Module) -> list[Any]:
    """Module paths in order with their classes, parameter paths in order, and the seams."""
    modules = [(path, id(module), type(module)) for path, module in model.named_modules()]
    parameters = [
        (path, name, id(value))
        for path, module in model.named_modules()
        for name, value in module.items()
    ]
    seams = [id(mx.fast.scaled_dot_product_attention), id(mx.softmax)]
    return [modules, parameters, seams]


@pytest.fixture
def untouched() -> Iterator[Callable[[nn.Module], None]]:
    """Register a model; at the end of the test it must be as it was, seams included."""
    seen: list[tuple[nn.Module, list[Any]]] = []
    yield lambda model: seen.append((model, state_of(model)))
    for model, before in seen:
        assert state_of(model) == before


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A folder on the path where a test may install plugins."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("MLXRAY_DISABLE_PLUGINS", raising=False)
    return Site(tmp_path)
