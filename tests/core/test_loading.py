"""From a folder or a name to a model, or to one typed line; never a crash of the interpreter."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama

from mlxray import InterpretableModel
from mlxray.errors import AdapterError, InputError, LoadError, PluginError
from mlxray.loading.load import check_safetensors, evaluate_parameters

from .reference import forward
from .test_values import close

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 12,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "vocab_size": 20,
    "tie_word_embeddings": False,
}
IDS = [3, 5, 7]


def checkpoint(folder: Path, *, shards: int = 1, config: Any = None) -> dict[str, mx.array]:
    """Write a small random llama; returns its weights."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    mx.random.seed(3)
    model = llama.Model(llama.ModelArgs(**CONFIG))
    weights = dict(tree_flatten(model.parameters()))
    names = sorted(weights)
    for index in range(shards):
        part = {name: weights[name] for name in names[index::shards]}
        suffix = "" if shards == 1 else f"-{index + 1:05}-of-{shards:05}"
        mx.save_safetensors(str(folder / f"model{suffix}.safetensors"), part)
    return weights


def fails(source: Any, match: str, **options: Any) -> str:
    """The one line of a LoadError, which is also a ValueError."""
    with pytest.raises(LoadError, match=match) as error:
        InterpretableModel(source, **options)
    text = str(error.value)
    assert isinstance(error.value, ValueError)
    assert "\n" not in text and len(text) < 1000
    return text


def test_parameters_that_are_missing_or_too_many_are_named(tmp_path: Path):
    weights = checkpoint(tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    file = str(tmp_path / "model.safetensors")
    mx.save_safetensors(file, {k: v for k, v in weights.items() if k != name})
    assert name in fails(str(tmp_path), "Missing 1 parameters")
    mx.save_safetensors(file, {**weights, "stranger.weight": mx.zeros(2)})
    assert "stranger.weight" in fails(str(tmp_path), "1 parameters not in model")


def test_an_empty_name_is_not_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint(tmp_path)
    monkeypatch.chdir(tmp_path)
    fails("", "there is no folder ''")
    assert InterpretableModel(".").layout.n_layers == 2


# What loads


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


# What does not


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("./nowhere", "there is no folder"),
        ("/nowhere/at/all", "there is no folder"),
        ("~/nowhere", "there is no folder"),
        ("gpt2", "there is no folder 'gpt2'.*hub id"),
        ("a/b/c", "there is no folder"),
        ("~nobody-of-this-name/x", "no folder"),
        ("x" * 5000, "no folder"),
        ("a\0b", "no folder"),
        ("http://example.com/model", "no folder"),
        ("", "config.json"),
    ],
    ids=lambda value: value[:12],
)
def test_names_that_are_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(source, match)


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    """Quick and without network: nothing answers at this address."""
    script = """
        import mlxray
        try:
            mlxray.InterpretableModel("somebody/some-model")
        except mlxray.MlxrayError as error:
            print(type(error).__name__, error)
    """
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**environment, "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("LoadError cannot fetch 'somebody/some-model' from the hub")
    assert "local folder" in done.stdout
    assert time.perf_counter() - start < 60


def test_folders_without_a_model(tmp_path: Path) -> None:
    fails(str(tmp_path), "no config.json")
    file = tmp_path / "file"
    file.write_text("x")
    fails(str(file), "not a folder")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    fails(str(tmp_path), r"no model\*\.safetensors")
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    fails(str(tmp_path), "cannot be read")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[" * 200_000, "cannot be read"),
        (b"[]", "model_type"),
        (b"null", "model_type"),
        (b"{}", "model_type"),
        (b'{"model_type": 5}', "model_type"),
        (b'{"model_type": "no_such_model"}', "no_such_model"),
        (b'{"model_type": "../../etc"}', "cannot load the model"),
        (b'{"model_type": "base"}', "cannot load the model"),
        (b'{"model_type": "llama"}', "cannot load the model"),
        (json.dumps({**CONFIG, "hidden_size": "8"}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "hidden_size": -8}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "hidden_size": 16}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "num_attention_heads": 0}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "num_hidden_layers": 3}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "num_hidden_layers": 1}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "quantization": {"bits": 4}}).encode(), "cannot load the model"),
        (json.dumps({**CONFIG, "model_file": "evil.py"}).encode(), "trust_remote_code"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_configs_that_are_broken(tmp_path: Path, content: bytes, match: str) -> None:
    checkpoint(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    (tmp_path / "config.json").write_bytes(content)
    fails(str(tmp_path), match)


def test_a_missing_tensor_and_a_missing_shard(tmp_path: Path) -> None:
    weights = checkpoint(tmp_path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    fails(str(tmp_path), "cannot load the model")
    (tmp_path / "model.safetensors").unlink()
    checkpoint(tmp_path, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    fails(str(tmp_path), "cannot load the model")


def test_every_truncation_of_a_checkpoint(tmp_path: Path) -> None:
    """A download that stopped, anywhere."""
    checkpoint(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 9, 100, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        fails(str(tmp_path), "not a whole safetensors file")
    path.write_bytes(whole)
    assert len(InterpretableModel(str(tmp_path)).layers) == 2


def test_one_truncated_shard_of_several(tmp_path: Path) -> None:
    checkpoint(tmp_path, shards=3)
    path = tmp_path / "model-00003-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert "00003" in fails(str(tmp_path), "the last 4 bytes are missing")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": "1.0"}', b"\xff"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_broken_tokenizers(tmp_path: Path, name: str, content: bytes) -> None:
    checkpoint(tmp_path)
    (tmp_path / name).write_bytes(content)
    fails(str(tmp_path), "cannot load the tokenizer")


def tensor(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}


LIES: dict[str, Any] = {
    "shape larger": {"a": tensor(shape=[1_000_000])},
    "shape smaller": {"a": tensor(shape=[1])},
    "shape overflows": {"a": tensor(shape=[2**31 - 1, 2**31 - 1])},
    "shape wraps to nothing": {"a": tensor(shape=[2**40], data_offsets=[0, 0])},
    "shape of empty giants": {"a": tensor(shape=[0, 2**40], data_offsets=[0, 0])},
    "shape negative": {"a": tensor(shape=[-4])},
    "shape negative twice": {"a": tensor(shape=[-2, -2])},
    "shape zero": {"a": tensor(shape=[0])},
    "shape of floats": {"a": tensor(shape=[4.0])},
    "shape a text": {"a": tensor(shape="4")},
    "shape null": {"a": tensor(shape=None)},
    "shape nested": {"a": tensor(shape=[[4]])},
    "shape of booleans": {"a": tensor(shape=[True, 4])},
    "begin negative": {"a": tensor(data_offsets=[-16, 0])},
    "begin far": {"a": tensor(data_offsets=[2**60, 16])},
    "begin after end": {"a": tensor(data_offsets=[32, 16])},
    "end negative": {"a": tensor(data_offsets=[0, -1])},
    "end past the file": {"a": tensor(data_offsets=[0, 10**9], shape=[250_000_000])},
    "all past the file": {"a": tensor(data_offsets=[10**9, 10**9 + 16])},
    "overlapping": {"a": tensor(), "b": tensor(data_offsets=[8, 24])},
    "the same place": {"a": tensor(), "b": tensor()},
    "one offset": {"a": tensor(data_offsets=[0])},
    "three offsets": {"a": tensor(data_offsets=[0, 16, 32])},
    "offsets of texts": {"a": tensor(data_offsets=["0", "16"])},
    "offsets of floats": {"a": tensor(data_offsets=[0.0, 16.0])},
    "offsets past 64 bits": {"a": tensor(data_offsets=[0, 2**70])},
    "dtype a number": {"a": tensor(dtype=5)},
    "dtype a list": {"a": tensor(dtype=["F32"])},
    "dtype missing": {"a": {"shape": [4], "data_offsets": [0, 16]}},
    "shape missing": {"a": {"dtype": "F32", "data_offsets": [0, 16]}},
    "offsets missing": {"a": {"dtype": "F32", "shape": [4]}},
    "tensor a number": {"a": 5},
    "tensor null": {"a": None},
    "header a list": [1, 2],
    "header null": None,
    "header a number": 5,
    "not JSON": b"{not json",
    "not UTF-8": b'{"\xff\xfe": 1}',
    "nested a hundred thousand deep": b"[" * 100_000,
    "NaN": b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}',
    "a number of 5000 digits": b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}",
}


def lie(path: Path, header: Any, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = np.arange(16, dtype=np.float32).tobytes()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


@pytest.mark.parametrize("name", LIES)
def test_headers_that_lie_are_refused_before_mlx_reads_them(tmp_path: Path, name: str) -> None:
    path = lie(tmp_path / "model.safetensors", LIES[name])
    with pytest.raises(LoadError, match="not a whole safetensors file") as error:
        check_safetensors(path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 10**9, 100_000_001, 500])
def test_header_lengths_that_lie(tmp_path: Path, length: int) -> None:
    path = lie(tmp_path / "model.safetensors", {"a": tensor()}, length)
    with pytest.raises(LoadError, match=f"its header would be {length} bytes"):
        check_safetensors(path)


@pytest.mark.parametrize(
    "header",
    [
        {"a": tensor()},
        {"__metadata__": {"format": "mlx"}, "a": tensor(), "b": tensor(data_offsets=[16, 32])},
        {"b": tensor(data_offsets=[16, 32]), "a": tensor()},
        {"a": tensor(shape=[2, 2])},
        {"a": tensor(dtype="BF16", shape=[8])},
        {"a": tensor(shape=[], data_offsets=[0, 4])},
        {"a": tensor(), "nothing": tensor(shape=[0], data_offsets=[16, 16])},
        {},
    ],
)
def test_headers_that_are_true(tmp_path: Path, header: Any) -> None:
    check_safetensors(lie(tmp_path / "model.safetensors", header))


def test_no_lie_crashes_the_interpreter(tmp_path: Path) -> None:
    """All of them in one other process, which must live to the end and name each."""
    checkpoint(tmp_path / "good")
    for index, header in enumerate(LIES.values()):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG))
        lie(folder / "model.safetensors", header)
    script = """
        import sys
        import mlxray
        for index in range(int(sys.argv[2])):
            try:
                mlxray.InterpretableModel(f"{sys.argv[1]}/{index}")
            except mlxray.MlxrayError as error:
                print(index, type(error).__name__)
        model = mlxray.InterpretableModel(f"{sys.argv[1]}/good")
        print("alive", model.run_with_hooks([1, 2]).shape)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), str(len(LIES))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines == [*(f"{i} LoadError" for i in range(len(LIES))), "alive (1, 2, 20)"]


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
