"""Fitting: a mean over prompts, a kill -9 in the middle, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.lenses.jacobian.estimator import default_batch, prompt_jacobian
from mlxray.analyses.lenses.jacobian.fit import estimate_jacobian_lens
from mlxray.analyses.lenses.jacobian.jacobian_lens_result import JacobianLens, merged
from mlxray.errors import AddressError, AnalysisError, InputError, LoadError, SaveError

LONG = "".join(chr(40 + (7 * i * i + 5 * i) % 50) for i in range(40))
TEXTS = [LONG, LONG[3:30], LONG[::-1][:25]]
QUIET = {"verbose": False, "batch_size": 8}


def equal(one, other):
    return one.n_prompts == other.n_prompts and all(
        mx.array_equal(one.jacobians[n], other.jacobians[n]).item() for n in one.jacobians
    )


def test_it_is_the_mean_of_each_prompts_own(make):
    model = make("llama", scale=0.3)
    lens = model.fit_jacobian_lens(TEXTS, **QUIET)
    assert lens.source_layers == [0, 1] and lens.n_prompts == 3 and lens.d_model == 32
    each = [prompt_jacobian(model, model.encode(text), [0, 1], batch_size=8) for text in TEXTS]
    for layer in (0, 1):
        mean = np.mean([found[layer].astype(np.float64) for found in each], axis=0)
        assert np.allclose(np.array(lens.jacobians[layer]), mean, atol=1e-5)
    # By how much the second and the third prompt moved the mean, the larger of the layers.
    for done in (1, 2):
        shares = []
        for layer in (0, 1):
            before = np.mean([found[layer] for found in each[:done]], axis=0)
            after = np.mean([found[layer] for found in each[: done + 1]], axis=0)
            shares.append(np.linalg.norm(after - before) / np.linalg.norm(before))
        assert lens.changes[done - 1] == pytest.approx(max(shares), rel=1e-4)
    assert "mean over 3 prompts" in lens.summary() and "at least 100 are usual" in lens.summary()


def test_prompts_are_cut_and_short_ones_left_out(make):
    model = make("llama")
    lens = model.fit_jacobian_lens([LONG[:17], "", LONG], max_tokens=20, **QUIET)
    assert lens.n_prompts == 1 and lens.metadata["parameters"]["too_short"] == 2
    assert equal(lens, model.fit_jacobian_lens([LONG[:20]], **QUIET))
    assert equal(lens, model.fit_jacobian_lens([model.encode(LONG[:20])], **QUIET))
    first = model.fit_jacobian_lens([LONG[:20], LONG], max_prompts=1, **QUIET)
    assert equal(lens, first)


def test_eighteen_tokens_are_enough_and_seventeen_too_few(make):
    model = make("llama")
    assert model.fit_jacobian_lens([LONG[:18]], **QUIET).n_prompts == 1
    with pytest.raises(InputError, match=r"Too little text: .*18 tokens.*longest of 2 has 17"):
        model.fit_jacobian_lens([LONG[:17], "x"], **QUIET)
    with pytest.raises(InputError, match=r"Too little text: .*there is no text"):
        model.fit_jacobian_lens([], **QUIET)


def test_a_file_of_texts(make, tmp_path):
    model = make("llama")
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"body": text}) for text in TEXTS))
    found = model.fit_jacobian_lens(str(path), field="body", **QUIET)
    assert equal(found, model.fit_jacobian_lens(TEXTS, **QUIET))


def test_parts_of_the_texts_are_merged_to_the_whole(make):
    model = make("llama", scale=0.3)
    parts = [model.fit_jacobian_lens(part, **QUIET) for part in (TEXTS[:1], TEXTS[1:])]
    together, whole = merged(parts), model.fit_jacobian_lens(TEXTS, **QUIET)
    assert together.n_prompts == 3
    assert mx.allclose(together.jacobians[0], whole.jacobians[0], atol=1e-5).item()
    with pytest.raises(InputError, match="lenses differ"):
        merged([whole, model.fit_jacobian_lens(TEXTS, layers=[1], **QUIET)])
    with pytest.raises(InputError, match="at least one"):
        merged([])


def test_it_goes_on_to_the_bit_with_more_texts_too(make, tmp_path):
    model = make("llama", scale=0.3)
    path = tmp_path / "fit.safetensors"
    seen = []
    options = {**QUIET, "checkpoint": path}
    model.fit_jacobian_lens(TEXTS[:2], callback=lambda *progress: seen.append(progress), **options)
    assert [done for done, _ in seen] == [1, 2] and seen[0][1] is None and seen[1][1] > 0
    called = []
    lens = model.fit_jacobian_lens(
        TEXTS, checkpoint=path, callback=lambda done, _: called.append(done), **QUIET
    )
    whole = model.fit_jacobian_lens(TEXTS, **QUIET)
    assert called == [3] and equal(lens, whole) and lens.changes == whole.changes
    again = model.fit_jacobian_lens(TEXTS, checkpoint=path, **QUIET)
    assert equal(again, whole)


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from mlxray import InterpretableModel
from conftest import wrapped
from jacobian_lens.test_fit import TEXTS
model = wrapped("llama", scale=0.3)
def slowly(done, _):
    Path({mark!r}).write_text(str(done))
    time.sleep(60 if done == 2 and {wait} else 0)
lens = model.fit_jacobian_lens(TEXTS, checkpoint={path!r}, save_path={out!r}, callback=slowly,
                               verbose=False, batch_size=8)
"""


def test_a_killed_fit_goes_on_to_the_bit(make, tmp_path):
    """Killed in the second prompt's callback, behind its checkpoint and before the end."""
    tests = str(Path(__file__).parents[1])
    mark, path, out = (str(tmp_path / n) for n in ("mark", "fit.safetensors", "lens.pt"))
    code = SCRIPT.format(tests=tests, mark=mark, path=path, out=out, wait=True)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    for _ in range(600):
        if process.poll() is not None or (Path(mark).exists() and Path(mark).read_text() == "2"):
            break
        time.sleep(0.1)
    assert process.poll() is None, process.stderr.read().decode()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not Path(out).exists()
    model = make("llama", scale=0.3)
    lens = model.fit_jacobian_lens(TEXTS, checkpoint=path, save_path=out, **QUIET)
    whole = model.fit_jacobian_lens(TEXTS, **QUIET)
    assert equal(lens, whole) and lens.changes == whole.changes
    assert model.load_jacobian_lens(out).n_prompts == 3


def test_checkpoints_of_something_else_are_refused(make, tmp_path):
    model = make("llama")
    path = tmp_path / "fit.safetensors"
    model.fit_jacobian_lens(TEXTS[:1], checkpoint=path, **QUIET)
    for changed, said in [
        ({"layers": [0]}, r"layers was \[0, 1\], now \[0\]"),
        ({"batch_size": 16}, "batch_size was 8, now 16"),
        ({"skip_first": 3}, "skip_first was 16, now 3"),
    ]:
        with pytest.raises(InputError, match=said):
            model.fit_jacobian_lens(TEXTS[:1], checkpoint=path, **{**QUIET, **changed})
    with pytest.raises(InputError, match="on other texts"):
        model.fit_jacobian_lens(TEXTS[1:], checkpoint=path, **QUIET)
    with pytest.raises(InputError, match="model was"):
        make("llama", seed=5).fit_jacobian_lens(TEXTS[:1], checkpoint=path, **QUIET)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LoadError):
        model.fit_jacobian_lens(TEXTS[:1], checkpoint=path, **QUIET)
    mx.save_safetensors(str(path), {"a": mx.zeros(1)})
    with pytest.raises(LoadError, match="no checkpoint of a Jacobian lens"):
        model.fit_jacobian_lens(TEXTS[:1], checkpoint=path, **QUIET)
    arrays, metadata = {"0": mx.zeros((2, 2)), "1": mx.zeros((32, 32))}, {}
    path.write_bytes(whole)
    metadata = mx.load(str(path), return_metadata=True)[1]
    mx.save_safetensors(str(path), arrays, metadata=metadata)
    with pytest.raises(LoadError, match="sums are not whole"):
        model.fit_jacobian_lens(TEXTS[:1], checkpoint=path, **QUIET)


def test_a_jacobian_that_is_not_finite_stops_it_and_keeps_the_checkpoint(make, tmp_path):
    """The second prompt has a token whose embedding is NaN."""
    model = make("llama", scale=0.3)
    path = tmp_path / "fit.safetensors"
    model.model.model.embed_tokens.weight[model.encode("!")[0]] = float("nan")
    with pytest.raises(AnalysisError, match="layer 0 is not finite at prompt 1"):
        model.fit_jacobian_lens([LONG, LONG[:20] + "!!"], checkpoint=path, **QUIET)
    kept = model.fit_jacobian_lens([LONG, LONG[:20]], checkpoint=path, **QUIET)
    assert equal(kept, model.fit_jacobian_lens([LONG, LONG[:20]], **QUIET))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"layers": [9]}, AddressError, "9"),
        ({"layers": []}, InputError, "empty"),
        ({"layers": [0, 0]}, InputError, "twice"),
        ({"max_tokens": 17}, InputError, "at least 18"),
        ({"max_prompts": 0}, InputError, "max_prompts"),
        ({"batch_size": 0}, InputError, "batch_size"),
        ({"skip_first": -1}, InputError, "skip_first"),
        ({"checkpoint": "fit.pt"}, InputError, "ends in .safetensors"),
        ({"save_path": "lens.npz"}, InputError, r"ends in \.pt"),
        ({"save_path": "/nowhere/lens.pt"}, SaveError, "no folder"),
        ({"checkpoint_every": 0}, InputError, "checkpoint_every"),
    ],
)
def test_arguments_out_of_range(make, options, error, said):
    with pytest.raises(error, match=said):
        make("llama").fit_jacobian_lens(TEXTS, **{**QUIET, **options})


def test_positions_of_a_table_end(make):
    with pytest.raises(InputError, match="positions for 24 tokens"):
        make("gpt2").fit_jacobian_lens([LONG], verbose=False)
    assert make("gpt2").fit_jacobian_lens([LONG], max_tokens=24, verbose=False).n_prompts == 1


def test_one_layer_has_nothing_to_fit(make):
    with pytest.raises(AnalysisError, match="one layer"):
        make("llama", num_hidden_layers=1).fit_jacobian_lens(TEXTS, **QUIET)


def test_half_precision_gives_about_the_same(make):
    whole = make("llama", scale=0.3).fit_jacobian_lens(TEXTS[:1], **QUIET)
    half = make("llama", scale=0.3, dtype=mx.bfloat16).fit_jacobian_lens(TEXTS[:1], **QUIET)
    assert half.jacobians[0].dtype == mx.float32
    difference = mx.linalg.norm(half.jacobians[0] - whole.jacobians[0])
    assert (difference / mx.linalg.norm(whole.jacobians[0])).item() < 0.1


def test_an_estimate_and_a_bar(make, capfd):
    model = make("llama")
    estimate = estimate_jacobian_lens(model, TEXTS, batch_size=10)
    assert (estimate.prompts, estimate.passes, estimate.bytes) == (3, 4, 2 * 4 * 32 * 32)
    assert 0 < estimate.seconds < 60 and "4 backward passes each" in str(estimate)
    model.fit_jacobian_lens(TEXTS, batch_size=10)
    said = capfd.readouterr().err
    assert "3 prompts, 4 backward passes each: about" in said and "12/12" in said
    assert default_batch(32, 128) == 32 and default_batch(1 << 20, 128) == 8


def test_what_a_lens_says_of_itself(make, tmp_path):
    model = make("llama", scale=0.3)
    lens = model.fit_jacobian_lens(TEXTS, **QUIET)
    columns, rows = lens.rows()
    jacobian = np.array(lens.jacobians[1])
    assert columns == ["layer", "norm / √D", "cosine with identity"]
    assert rows[1][0] == 1
    assert rows[1][1] == pytest.approx(np.linalg.norm(jacobian) / 32**0.5, rel=1e-5)
    cosine = np.trace(jacobian) / (32**0.5 * np.linalg.norm(jacobian))
    assert rows[1][2] == pytest.approx(cosine, rel=1e-4)
    stored = json.loads(lens.save(tmp_path / "lens.json").read_text())
    assert stored["data"]["n_prompts"] == 3 and len(json.dumps(stored)) < 3000
    with pytest.raises(InputError, match="at least one layer"):
        JacobianLens({}, 1, 4)
    with pytest.raises(InputError, match=r"shape \(2, 3\)"):
        JacobianLens({0: mx.zeros((2, 3))}, 1, 2)
