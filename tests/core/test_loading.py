"""From a folder, a name or a module to a model."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import llama

from mlxray import InterpretableModel
from mlxray.errors import AdapterError, InputError, PluginError
from mlxray.loading.load import evaluate_parameters

from .checkpoint import IDS, checkpoint
from .reference import forward
from .test_values import close

# Folders and names


@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_loads(tmp_path: Path, shards: int) -> None:
    checkpoint(tmp_path / "model", shards=shards)
    model = InterpretableModel(str(tmp_path / "model"))
    assert model.tokenizer is None
    close(model.run_with_hooks(IDS), forward(model.model, IDS)[0])
    assert model.name == str(tmp_path / "model")
    assert InterpretableModel(tmp_path / "model").name == model.name


def test_from_pretrained_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint(tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    model = InterpretableModel.from_pretrained("~/model")
    assert len(model.layers) == 2
    monkeypatch.chdir(tmp_path)
    assert len(InterpretableModel("model").layers) == 2
    assert len(InterpretableModel("./model").layers) == 2


def test_a_tokenizer_of_ones_own(tmp_path: Path, make: Any) -> None:
    checkpoint(tmp_path / "model")
    model = InterpretableModel(str(tmp_path / "model"), make.tokenizer())
    assert model.tokenizer.bos_token == "<s>"
    for text in ("i", ["a", "i"]):  # a letter past this small vocabulary
        with pytest.raises(InputError, match="token id 20 is outside the vocabulary"):
            model.run_with_hooks(text)


def test_no_tokenizer_says_so(tmp_path: Path) -> None:
    checkpoint(tmp_path / "model")
    model = InterpretableModel(str(tmp_path / "model"))
    with pytest.raises(InputError, match="tokenizer"):
        model.run_with_hooks("text")


# Wrapping what is there


@pytest.mark.parametrize("thing", [None, 5, [], {}, object(), llama.Model])
def test_things_that_are_no_model(thing: Any) -> None:
    with pytest.raises(InputError, match=r"expected an mlx\.nn\.Module or a name"):
        InterpretableModel(thing)


def test_a_wrapped_model_is_not_wrapped_again(llama_model: InterpretableModel) -> None:
    with pytest.raises(InputError, match="InterpretableModel"):
        InterpretableModel(llama_model)  # type: ignore[arg-type]


def test_paths_that_match_nothing(make: Any) -> None:
    raw = make.llama(layers=1)
    for option in ("embedding_path", "norm_path", "lm_head_path"):
        with pytest.raises(AdapterError, match=r"no module at 'model\.nothing'"):
            InterpretableModel(raw, **{option: "model.nothing"})
    with pytest.raises(AdapterError):
        InterpretableModel(raw, layer_attr="no_such_list")
    with pytest.raises(AttributeError):  # as the reference promises
        InterpretableModel(raw, layer_attr="transformer")
    with pytest.raises(PluginError, match=r"no adapter 'lama'.*'llama'"):
        InterpretableModel(raw, adapter="lama")


def test_paths_may_leave_out_their_beginning(make: Any) -> None:
    raw = make.llama(layers=2)
    model = InterpretableModel(
        raw,
        embedding_path="embed_tokens",
        norm_path="model.model.norm",
        lm_head_path="lm_head",
        layer_attr="model.layers",
    )
    assert model.adapter.embed == "model.embed_tokens"
    assert model.adapter.final_norm == "model.norm"
    with pytest.raises(AdapterError, match="ambiguous"):
        InterpretableModel(raw, norm_path="input_layernorm")


def test_hidden_and_listed_arrays_are_evaluated(make: Any) -> None:
    raw = make.llama(layers=1)
    raw.model.extra = [mx.ones((2,)) * 2, (mx.ones((2,)) * 3,)]
    raw.model._hidden = mx.ones((2,)) * 4
    raw.model.table = {"a": mx.ones((2,)) * 5, "b": [mx.ones((2,)) * 6]}
    evaluate_parameters(raw)
    values: list[Any] = []

    def work() -> None:
        try:
            values.extend(
                [
                    (raw.model.extra[0] + 0).tolist(),
                    (raw.model.extra[1][0] + 0).tolist(),
                    (raw.model._hidden + 0).tolist(),
                    (raw.model.table["a"] + 0).tolist(),
                    (raw.model.table["b"][0] + 0).tolist(),
                ]
            )
        except RuntimeError as error:
            values.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert values == [[2.0, 2.0], [3.0, 3.0], [4.0, 4.0], [5.0, 5.0], [6.0, 6.0]]
