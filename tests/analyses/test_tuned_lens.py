"""The tuned lens: identity at the start, numpy's KL, finite differences, PyTorch's Nesterov."""

import json
import math
import warnings

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.lenses import training
from mlxray.analyses.lenses.training import loss_and_gradients
from mlxray.analyses.lenses.tuned_lens import TunedLens
from mlxray.errors import AddressError, AnalysisError, InputError, LoadError
from mlxray.pocket.corpus import Corpus
from mlxray.results.base import AnalysisResult

TEXT = "abcabdabcxyzhello"
TOKENS = [1 + (ord(c) - 33) % 60 for c in TEXT]


def jolted(lens, seed=0, size=0.2):
    keys = iter(mx.random.split(mx.random.key(seed), 2 * lens.num_layers))
    for translator in lens.translators:
        for name in ("weight", "bias"):
            translator[name] += size * mx.random.normal(translator[name].shape, key=next(keys))
    return lens


def log_softmax(x):
    x = np.array(x.astype(mx.float32)).astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def divergence(model, lens, layer):
    """KL(model ‖ layer) in nats per token, in float64."""
    residual = np.array(model.watch(TOKENS, "resid_post", [layer])[layer]).astype(np.float64)
    weight, bias = (np.array(lens.translators[layer][n]) for n in ("weight", "bias"))
    translated = mx.array((residual @ weight.T + bias).astype(np.float32))
    wanted = log_softmax(model.model(mx.array([TOKENS])))
    got = log_softmax(model.finish_from(translated))
    return (np.exp(wanted) * (wanted - got)).sum(-1).mean()


def test_an_untrained_lens_is_the_logit_lens(make):
    model = make("llama")
    lens = TunedLens(num_layers=3, hidden_dim=32)
    plain, tuned = model.logit_lens(TEXT, top_k=3), model.tuned_lens(TEXT, lens, top_k=3)
    assert tuned.predictions == plain.predictions
    assert tuned.probabilities == plain.probabilities


def test_translators_are_affine_maps(make):
    model = make("gemma2")
    lens = jolted(TunedLens(3, 32))
    result = model.tuned_lens(TEXT, lens, layers=[1], position=-1, top_k=2)
    residual = np.array(model.watch(TEXT, "resid_post", [1])[1])
    weight, bias = np.array(lens.translators[1].weight), np.array(lens.translators[1].bias)
    own = np.array(model.finish_from(mx.array(residual @ weight.T + bias)))[0, -1]
    assert [t for t, _, _ in result[1][0]] == np.argsort(-own)[:2].tolist()
    assert result[1][0][0][1] == pytest.approx(own.max(), abs=1e-4)
    assert lens(mx.zeros((2, 32), dtype=mx.bfloat16), 0).dtype == mx.bfloat16


def test_the_result_names_the_lens_and_not_its_weights(make):
    result = make("llama").tuned_lens(TEXT, TunedLens(3, 32))
    assert "not trained" in result.metadata["parameters"]["tuned_lens"]
    assert len(result.to_json()) < 20_000


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_the_loss_is_the_divergence(make, family, monkeypatch):
    model, lens = make(family), jolted(TunedLens(3, 32))
    loss, gradients = loss_and_gradients(model, lens, TOKENS)
    assert loss == pytest.approx(
        (divergence(model, lens, 0) + divergence(model, lens, 1)) / 2, 1e-4
    )
    assert len(gradients) == 2
    monkeypatch.setattr(training, "rows_at_once", lambda vocabulary: 5)
    sliced, again = loss_and_gradients(model, lens, TOKENS)
    assert sliced == pytest.approx(loss, rel=1e-5)
    for ours, others in zip(gradients, again, strict=True):
        assert mx.allclose(ours["weight"], others["weight"], rtol=1e-3, atol=1e-5).item()


def test_gradients_are_central_differences(make):
    model, lens = make("gemma2"), jolted(TunedLens(3, 32))
    _, gradients = loss_and_gradients(model, lens, TOKENS)
    for layer, name, place in [(0, "weight", (3, 7)), (1, "weight", (0, 0)), (1, "bias", (5,))]:
        parameter = lens.translators[layer][name]
        ends = []
        for step in (0.01, -0.01):
            moved = np.array(parameter)
            moved[place] += step
            lens.translators[layer][name] = mx.array(moved)
            ends.append(divergence(model, lens, layer))
        lens.translators[layer][name] = parameter
        expected = (ends[0] - ends[1]) / 0.02
        assert gradients[layer][name][place].item() == pytest.approx(expected, rel=0.02, abs=2e-4)


def test_steps_are_nesterov_momentum_with_linear_decay_and_one_clip(make, monkeypatch):
    given = iter(np.random.default_rng(0).normal(size=(4, 2, 33, 32)).astype(np.float32) * 0.05)

    def fake(model, lens, tokens):
        drawn = next(given)
        return 1.0, [{"weight": mx.array(g[:32]), "bias": mx.array(g[32])} for g in drawn]

    monkeypatch.setattr(training, "loss_and_gradients", fake)
    rate, momentum, clip = 0.5, 0.8, 0.7
    lens = make("llama").train_tuned_lens(
        [TEXT],
        num_steps=4,
        learning_rate=rate,
        momentum=momentum,
        gradient_clip=clip,
        max_seq_len=10,
        verbose=False,
    )
    values = np.stack([np.vstack([np.eye(32), np.zeros((1, 32))])] * 2)
    velocity = np.zeros_like(values)
    again = np.random.default_rng(0).normal(size=(4, 2, 33, 32)).astype(np.float32) * 0.05
    for step, gradient in enumerate(again):
        gradient = gradient * min(1, clip / np.linalg.norm(gradient))
        velocity = momentum * velocity + gradient
        size = rate * (1 - momentum) * (1 - step / 4)
        values = values - size * (gradient + momentum * velocity)
    for layer in (0, 1):
        assert np.allclose(lens.translators[layer].weight, values[layer][:32], atol=1e-5)
        assert np.allclose(lens.translators[layer].bias, values[layer][32], atol=1e-5)


def test_training_lowers_the_loss_and_leaves_the_model_alone(make, tmp_path, capfd):
    model = make("qwen3")
    before = model.model(mx.array([TOKENS]))
    seen = []
    path = tmp_path / "my.lens.npz"
    lens = model.train_tuned_lens(
        [TEXT, "   ", "more text, and more"],
        num_steps=30,
        max_seq_len=12,
        save_path=path,
        callback=lambda step, loss: seen.append((step, loss)),
    )
    assert "tuned lens" in capfd.readouterr().err
    assert seen == list(enumerate(lens.losses))
    assert len(seen) == 30
    assert np.mean(lens.losses[-3:]) < 0.8 * np.mean(lens.losses[:3])
    for layer in (0, 1):
        assert divergence(model, lens, layer) < divergence(model, TunedLens(3, 32), layer)
    assert mx.array_equal(model.model(mx.array([TOKENS])), before)
    assert mx.array_equal(lens.translators[2].weight, mx.eye(32))
    assert isinstance(lens, AnalysisResult)
    assert lens.metadata["parameters"]["dataset"] == "3 texts, 36 tokens"
    assert "30 steps" in lens.summary()
    assert json.loads(lens.to_json())["data"]["losses"] == lens.losses
    again = model.load_tuned_lens(str(path))
    assert model.tuned_lens(TEXT, again)[0] == model.tuned_lens(TEXT, lens)[0]


def test_training_works_in_half_precision_and_quantized(make, quantized):
    for model in (make("llama", dtype=mx.float16, scale=0.3), quantized("llama")):
        lens = model.train_tuned_lens([TEXT], num_steps=12, max_seq_len=16, verbose=False)
        assert lens.losses[-1] < lens.losses[0]


def test_the_seed_decides_the_order(make):
    def losses(seed):
        return (
            make("llama")
            .train_tuned_lens([TEXT * 4], 4, max_seq_len=10, verbose=False, seed=seed)
            .losses
        )

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


@pytest.mark.parametrize("spelling", ["lens", "lens.npz", "lens.json", "v1.2/lens"])
def test_every_spelling_of_the_path(tmp_path, spelling):
    lens = jolted(TunedLens(2, 4))
    lens.losses = [2.0, 1.0]
    path = tmp_path / spelling
    path.parent.mkdir(exist_ok=True)
    assert lens.save(path).suffix == ".npz"
    stem = path.with_suffix("") if path.suffix else path
    for ending in ("", ".npz", ".json"):
        again = TunedLens.load(f"{stem}{ending}")
        assert (again.num_layers, again.hidden_dim, again.losses) == (2, 4, [2.0, 1.0])
        for ours, others in zip(lens.translators, again.translators, strict=True):
            assert mx.array_equal(ours.weight, others.weight)
            assert mx.array_equal(ours.bias, others.bias)


def test_other_endings_write_what_results_write(tmp_path):
    path = TunedLens(2, 4).save(tmp_path / "lens.md")
    assert path.read_text().startswith("# Tuned lens")


def test_broken_files_are_refused(tmp_path):
    with pytest.raises(LoadError, match="there is no"):
        TunedLens.load(tmp_path / "none")
    TunedLens(2, 4).save(tmp_path / "lens")
    weights, facts = tmp_path / "lens.npz", tmp_path / "lens.json"
    content = json.loads(facts.read_text())
    facts.write_text(json.dumps({**content, "hidden_dim": 5}))
    with pytest.raises(LoadError, match=r"'0\.weight\.npy' is float32 \(4, 4\)"):
        TunedLens.load(tmp_path / "lens")
    facts.write_text(json.dumps({**content, "format": "other"}))
    with pytest.raises(LoadError, match="no tuned lens"):
        TunedLens.load(tmp_path / "lens")
    facts.write_text("{")
    with pytest.raises(LoadError, match="cannot be read"):
        TunedLens.load(tmp_path / "lens")
    facts.write_text(json.dumps(content))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(LoadError, match="broken"):
        TunedLens.load(tmp_path / "lens")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": []}, "empty"),
        ({"dataset": ["  ", "\n"]}, "empty"),
        ({"dataset": "abc"}, "list of texts"),
        ({"dataset": [TEXT], "max_seq_len": 100}, "17 tokens, fewer than max_seq_len=100"),
        ({"dataset": [TEXT], "max_seq_len": 9}, "at least 10"),
        ({"max_seq_len": 2048}, "fewer than max_seq_len=2048"),
        ({"num_steps": 0}, "at least one step"),
        ({"learning_rate": 0}, "positive"),
        ({"learning_rate": math.nan}, "positive"),
        ({"momentum": 1.0}, "between 0 and 1"),
        ({"gradient_clip": 0}, "positive"),
        ({"save_path": "/no/such/folder/lens.npz"}, "no folder"),
    ],
)
def test_bad_training_is_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make("llama").train_tuned_lens(**{"dataset": [TEXT], "max_seq_len": 10, **options})


def test_models_that_cannot_be_trained_so_are_refused(make):
    with pytest.raises(InputError, match="pass max_seq_len=24"):
        make("gpt2").train_tuned_lens([TEXT * 5], max_seq_len=50)
    with pytest.raises(AnalysisError, match="nothing to tune"):
        make("llama", num_hidden_layers=1).train_tuned_lens([TEXT], max_seq_len=10)


def test_a_loss_that_explodes_is_refused(make, monkeypatch):
    monkeypatch.setattr(training, "loss_and_gradients", lambda *a: (math.nan, []))
    with pytest.raises(AnalysisError, match="lower learning_rate"):
        make("llama").train_tuned_lens([TEXT], max_seq_len=10, verbose=False)


def test_a_lens_of_another_model_is_refused(make, tmp_path):
    model = make("llama")
    with pytest.raises(InputError, match="2 layers of width 32; the model has 3 of 32"):
        model.tuned_lens(TEXT, TunedLens(2, 32))
    TunedLens(3, 8).save(tmp_path / "lens")
    with pytest.raises(InputError, match="width 8"):
        model.load_tuned_lens(tmp_path / "lens")
    with pytest.raises(InputError, match=r"is a TunedLens; got 'lens\.npz'"):
        model.tuned_lens(TEXT, "lens.npz")
    lens = TunedLens(3, 32)
    with pytest.raises(AddressError):
        lens(mx.zeros((1, 32)), 3)
    with pytest.raises(InputError, match="32 wide"):
        lens(mx.zeros((1, 16)), layer_idx=0)
    with pytest.raises(InputError, match="at least one layer"):
        TunedLens(0, 32)


def test_it_is_a_public_name():
    import mlxray

    assert mlxray.TunedLens is TunedLens


def test_chunks_past_the_context_are_warned_of():
    model = InterpretableModel("pocket")
    texts = ["The capital of France is Paris. "] * 60
    with pytest.warns(UserWarning, match="257 tokens; this model's context is 256"):
        model.train_tuned_lens(texts, num_steps=1, max_seq_len=257, verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.train_tuned_lens(texts, num_steps=1, max_seq_len=256, verbose=False)


def test_it_is_nearer_the_model_than_the_logit_lens_at_each_layer_of_pocket():
    """A few steps on the embedded model's own text, measured on text that was held out."""
    model = InterpretableModel("pocket")
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
    rows = Corpus(tokenizer).batch(0, rows=44, length=64, counted=8).tokens[:, :64].tolist()
    texts = [model.tokenizer.decode(row) for row in rows]
    lens = model.train_tuned_lens(texts[:-4], num_steps=40, max_seq_len=64, verbose=False)
    total = np.zeros((2, 4))
    for text in texts[-4:]:
        ids = model.encode(text)[:64]
        streams = model.watch(ids, "resid_post")
        wanted = log_softmax(model.model(mx.array([ids])))
        for layer in range(4):
            for index, read in enumerate((streams[layer], lens(streams[layer], layer))):
                got = log_softmax(model.finish_from(read))
                total[index, layer] += (np.exp(wanted) * (wanted - got)).sum(-1).mean() / 4
    assert (total[1] < 0.9 * total[0]).all(), total
