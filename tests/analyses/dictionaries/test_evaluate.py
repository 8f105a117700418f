"""The report against plain loops that share no code with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.dictionaries import (
    Crosscoder,
    CrossLayerTranscoder,
    Dictionary,
    JumpReLU,
    ReLU,
    TopK,
    TranscoderLayer,
)
from mlxray.errors import AddressError, InputError, LoadError

RNG = np.random.default_rng(5)
TEXTS = ["The capital of France is", "The capital of Italy is Rome", "Alice gave the ball to Bob"]


@pytest.fixture(scope="module")
def model() -> InterpretableModel:
    return InterpretableModel("pocket")


def array(*shape: int, size: float = 1.0) -> mx.array:
    return mx.array(size * RNG.normal(size=shape).astype(np.float32))


def width(model: InterpretableModel) -> int:
    return int(model.watch([0], "resid_post", [0])[0].shape[-1])


def small(d: int, **more: Any) -> Dictionary:
    weights = array(d, 3 * d, size=d**-0.5)
    return Dictionary(
        encoder=weights,
        encoder_bias=array(3 * d, size=0.1),
        decoder=weights.T * 0.7,
        decoder_bias=array(d, size=0.1),
        **{"activation": TopK(d), "reads": "layers.1.resid_post", **more},
    )


def softmax_loss(logits: mx.array, ids: list[int]) -> float:
    """Cross-entropy, token by token."""
    rows = np.array(logits.astype(mx.float32))[0].astype(np.float64)
    total = 0.0
    for row, token in zip(rows[:-1], ids[1:], strict=True):
        p = np.exp(row - row.max())
        total -= np.log(p[token] / p.sum())
    return total


def by_hand(
    model: InterpretableModel, reads: str, writes: str, encode: Any, decode: Any
) -> dict[str, float]:
    """The report of a dictionary of one point, one token at a time."""
    ids = [model.encode(text) for text in TEXTS]
    ys, made, fired = [], [], []
    for tokens in ids:
        cache = model.run_with_cache(tokens, [reads, writes])[1]
        for x, y in zip(np.array(cache[reads])[0], np.array(cache[writes])[0], strict=True):
            f = np.array(encode(mx.array(x)))
            fired.append(f != 0)
            made.append(np.array(decode(mx.array(f), mx.array(x))))
            ys.append(y)
    Y, M, on = np.array(ys, np.float64), np.array(made, np.float64), np.array(fired)
    variance = error = 0.0
    for dimension in range(Y.shape[1]):
        variance += ((Y[:, dimension] - Y[:, dimension].mean()) ** 2).sum()
        error += ((Y[:, dimension] - M[:, dimension]) ** 2).sum()
    losses = {"clean": 0.0, "spliced": 0.0, "zero": 0.0, "mean": 0.0}
    at = 0
    for tokens in ids:
        values = {
            "spliced": mx.array(M[at : at + len(tokens)][None].astype(np.float32)),
            "zero": mx.zeros((1, len(tokens), Y.shape[1])),
            "mean": mx.array(np.tile(Y.mean(0), (1, len(tokens), 1)).astype(np.float32)),
        }
        at += len(tokens)
        losses["clean"] += softmax_loss(model.model(mx.array([tokens])), tokens)
        for name, value in values.items():
            logits = model.run_with_hooks(tokens, {writes: lambda x, v=value: v})
            losses[name] += softmax_loss(logits, tokens)
    predicted = sum(len(tokens) - 1 for tokens in ids)
    loss = {name: value / predicted for name, value in losses.items()}
    return {
        "l0": float(on.sum(axis=1).mean()),
        "dead": float((~on.any(axis=0)).mean()),
        "explained_variance": 1 - error / variance,
        "loss_recovered": (loss["zero"] - loss["spliced"]) / (loss["zero"] - loss["clean"]),
        "loss_recovered_from_mean": (
            (loss["mean"] - loss["spliced"]) / (loss["mean"] - loss["clean"])
        ),
        **{f"loss_{name}": value for name, value in loss.items()},
    }


@pytest.mark.parametrize("form", ["autoencoder", "transcoder", "skip"])
def test_report_is_what_loops_say(model: InterpretableModel, form: str) -> None:
    d = width(model)
    more: dict[str, Any] = {}
    if form != "autoencoder":
        more = {"reads": "layers.1.resid_mid", "writes": "layers.1.mlp_out"}
        more["activation"] = JumpReLU(mx.full((3 * d,), 0.5))
    if form == "skip":
        more["skip"] = array(d, d, size=0.05)
    dictionary = small(d, **more)
    report = model.evaluate_dictionary(dictionary, TEXTS)
    assert dictionary.reads and dictionary.writes
    wanted = by_hand(
        model, dictionary.reads, dictionary.writes, dictionary.encode, dictionary.decode
    )
    for name, value in wanted.items():
        assert getattr(report, name) == pytest.approx(value, rel=1e-3, abs=1e-4), name
    assert report.tokens == sum(len(model.encode(text)) for text in TEXTS)
    assert report.frequencies.shape == (3 * d,)
    assert np.array(report.frequencies).sum() == pytest.approx(report.l0, rel=1e-4)
    assert "loss recovered" in report.summary() and report.rows()[1]


def test_a_perfect_dictionary_recovers_all(model: InterpretableModel) -> None:
    d = width(model)
    eye = mx.eye(d)
    both = mx.concatenate([eye, -eye], axis=1)
    perfect = Dictionary(
        encoder=both,
        encoder_bias=mx.zeros(2 * d),
        decoder=both.T,
        decoder_bias=mx.zeros(d),
        activation=ReLU(),
        reads="layers.0.resid_post",
    )
    report = model.evaluate_dictionary(perfect, TEXTS)
    assert report.explained_variance == pytest.approx(1, abs=1e-6)
    assert report.loss_recovered == pytest.approx(1, abs=1e-4)
    assert report.loss_spliced == pytest.approx(report.loss_clean, abs=1e-4)
    assert report.l0 == pytest.approx(d, abs=1) and report.dead < 0.1


def test_cross_layer_transcoder_reads_what_the_spliced_layers_below_made(
    model: InterpretableModel,
) -> None:
    d, L = width(model), model.layout.n_layers
    layers = tuple(
        TranscoderLayer(
            encoder=array(2 * d, d, size=d**-0.5),
            encoder_bias=array(2 * d, size=0.1),
            decoder=array(2 * d, L - number, d, size=0.05),
            decoder_bias=array(d, size=0.1),
        )
        for number in range(L)
    )
    reads = tuple(f"layers.{n}.resid_mid" for n in range(L))
    writes = tuple(f"layers.{n}.mlp_out" for n in range(L))
    clt = CrossLayerTranscoder(layers=layers, reads=reads, writes=writes)
    report = model.evaluate_dictionary(clt, TEXTS[:1])
    ids = model.encode(TEXTS[0])
    # Layer by layer: what was found for the layers below is put in as it is.
    found: list[mx.array] = []
    hooks: dict[str, Any] = {}
    for number in range(L):
        x = model.run_with_cache(ids, reads[number], interventions=hooks)[1][reads[number]]
        found.append(mx.maximum(x @ layers[number].encoder.T + layers[number].encoder_bias, 0))
        made = layers[number].decoder_bias + sum(
            found[at] @ layers[at].decoder[:, number - at] for at in range(number + 1)
        )
        hooks[writes[number]] = lambda activation, value=made: value
    wanted = softmax_loss(model.run_with_hooks(ids, hooks), ids) / (len(ids) - 1)
    assert report.loss_spliced == pytest.approx(wanted, rel=1e-3)
    assert report.frequencies.shape == (L * 2 * d,)


def test_crosscoder_puts_in_what_it_makes_of_the_untouched_run(model: InterpretableModel) -> None:
    d = width(model)
    points = ("layers.0.resid_post", "layers.2.resid_post")
    coder = Crosscoder(
        encoder=array(2, d, 2 * d, size=0.1),
        encoder_bias=array(2 * d),
        decoder=array(2 * d, 2, d, size=0.1),
        decoder_bias=array(2, d),
        activation=TopK(9),
        points=points,
    )
    report = model.evaluate_dictionary(coder, TEXTS[:1])
    ids = model.encode(TEXTS[0])
    cache = model.run_with_cache(ids, points)[1]
    outputs = coder([cache[p] for p in points])
    hooks = {p: (lambda a, value=o: value) for p, o in zip(points, outputs, strict=True)}
    wanted = softmax_loss(model.run_with_hooks(ids, hooks), ids) / (len(ids) - 1)
    assert report.loss_spliced == pytest.approx(wanted, rel=1e-4)
    assert report.l0 == pytest.approx(9, abs=1)


def test_first_tokens_can_be_left_alone(model: InterpretableModel) -> None:
    d = width(model)
    zero = dataclasses.replace(small(d), decoder=mx.zeros((3 * d, d)), decoder_bias=mx.zeros(d))
    report = model.evaluate_dictionary(zero, TEXTS[:1], skip_first=2)
    ids = model.encode(TEXTS[0])

    def cut(x: mx.array) -> mx.array:
        rows = np.array(x)
        rows[:, 2:] = 0
        return mx.array(rows)

    logits = model.run_with_hooks(ids, {"layers.1.resid_post": cut})
    wanted = softmax_loss(logits, ids) / (len(ids) - 1)
    assert report.loss_spliced == report.loss_zero == pytest.approx(wanted, rel=1e-4)
    assert report.loss_recovered == 0 and report.tokens == len(ids) - 2
    assert isinstance(report.explained_variance, float)


def test_refusals(model: InterpretableModel) -> None:
    d = width(model)
    with pytest.raises(InputError, match="does not say where in the model it stands"):
        model.evaluate_dictionary(dataclasses.replace(small(d), reads=None, writes=None), TEXTS)
    wrong = rf"reads width {d + 1}, but layers.1.resid_post is {d} wide"
    with pytest.raises(InputError, match=wrong):
        model.evaluate_dictionary(small(d + 1), TEXTS)
    with pytest.raises(AddressError):
        model.evaluate_dictionary(small(d, reads="layers.99.resid_post"), TEXTS)
    with pytest.raises(InputError, match=r"has shape .*a dictionary reads \(B, S, D\)"):
        model.evaluate_dictionary(small(d, reads="layers.0.z"), TEXTS)
    with pytest.raises(InputError, match="texts is a list of"):
        model.evaluate_dictionary(small(d), [])
    with pytest.raises(LoadError, match="If this is a text, put it into a list"):
        model.evaluate_dictionary(small(d), "one text")
    with pytest.raises(InputError, match="no text has 2 tokens"):
        model.evaluate_dictionary(small(d), [[5]])
    with pytest.raises(InputError, match="got dict"):
        model.evaluate_dictionary({}, TEXTS)
    with pytest.raises(LoadError, match="there is no folder 'sae'"):
        model.evaluate_dictionary("sae", TEXTS)


def test_long_texts_are_cut_and_files_are_read(model: InterpretableModel, tmp_path: Path) -> None:
    """Against pieces cut by hand: each begins with the token that begins texts."""
    made = small(width(model))
    long = " ".join(TEXTS)
    ids = model.encode(long)
    begin = ids[0]
    by_hand = [ids[:8], [begin, *ids[8:15]], [begin, *ids[15:22]]]
    assert len(ids) == 1 + sum(len(piece) - 1 for piece in by_hand)
    wanted = model.evaluate_dictionary(made, by_hand, skip_first=1)
    cut = model.evaluate_dictionary(made, [long], skip_first=1, context=8)
    for name in ("tokens", "l0", "loss_clean", "loss_spliced", "loss_mean", "dead"):
        assert getattr(cut, name) == getattr(wanted, name)
    whole = model.evaluate_dictionary(made, [long], skip_first=1, context=len(ids))
    assert whole.tokens == len(ids) - 1 and whole.loss_clean != cut.loss_clean
    with pytest.raises(InputError, match="context is an integer, at least 2; got 1"):
        model.evaluate_dictionary(made, [long], context=1)
    (tmp_path / "t.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    lines = model.evaluate_dictionary(made, tmp_path / "t.txt", split="line")
    assert lines.loss_spliced == model.evaluate_dictionary(made, TEXTS).loss_spliced


def test_progress_is_shown_where_asked(
    model: InterpretableModel, capsys: pytest.CaptureFixture[str]
) -> None:
    made = small(width(model))
    model.evaluate_dictionary(made, TEXTS)
    assert capsys.readouterr().err == ""
    model.evaluate_dictionary(made, TEXTS, verbose=True)
    shown = capsys.readouterr().err
    assert "reading" in shown and "splicing" in shown
