"""Reading through the lens: a product with J and the model's own tail, on every family."""

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.lenses.jacobian.jacobian_lens_result import JacobianLens
from mlxray.errors import AddressError, InputError, LoadError, PointAbsent
from mlxray.testing.zoo import small_model

TEXT = "abcabdabcxyzhello"


def a_lens(width=32, layers=(0, 1), seed=0):
    drawn = np.random.default_rng(seed).normal(size=(len(layers), width, width)) / width**0.5
    return JacobianLens(
        {n: mx.array(j.astype(np.float32)) for n, j in zip(layers, drawn, strict=True)}, 9, width
    )


@pytest.mark.floats
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "cohere"])
def test_it_is_the_product_and_then_the_models_tail(make, family):
    model, lens = make(family), a_lens()
    result = model.jacobian_lens(TEXT, lens, top_k=3)
    assert list(result) == [0, 1, 2] and result.point == "resid_post"
    streams = model.watch(TEXT, "resid_post")
    for layer in (0, 1):
        carried = np.array(streams[layer])[0] @ np.array(lens.jacobians[layer]).T
        logits = np.array(model.finish_from(mx.array(carried[None])))[0]
        best = np.sort(logits, axis=-1)[:, ::-1][:, :3]
        found = np.array([[score for _, score, _ in cell] for cell in result[layer]])
        assert np.allclose(found, best, atol=1e-3 * np.abs(best).max())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_last_layer_is_the_logit_lens_and_the_models_own(make, family):
    model = make(family)
    result = model.jacobian_lens(TEXT, a_lens(), top_k=4)
    plain = model.logit_lens(TEXT, top_k=4)
    assert result[2] == plain[2] and result.probabilities[2] == plain.probabilities[2]
    own = np.array(model.run_with_hooks(TEXT))[0]
    assert [cell[0][0] for cell in result[2]] == own.argmax(axis=-1).tolist()


def test_a_lens_of_identities_is_the_logit_lens(make):
    model = make("gemma2")
    lens = JacobianLens({n: mx.eye(32) for n in (0, 1)}, 1, 32)
    assert model.jacobian_lens(TEXT, lens).predictions == model.logit_lens(TEXT).predictions


def test_layers_positions_and_the_file(make, tmp_path):
    model, lens = make("llama"), a_lens()
    path = lens.save(tmp_path / "lens.pt", dtype="float32")
    result = model.jacobian_lens(TEXT, path, layers=[1, -1], position=-2)
    assert list(result) == [1, 2] and result.positions == [len(TEXT) - 2]
    assert result[1] == model.jacobian_lens(TEXT, lens, layers=[1], position=-2)[1]
    assert "mean over 9 prompts" in result.metadata["parameters"]["lens"]
    assert len(result.to_json()) < 5000


def test_half_precision_stays(make):
    lens = a_lens()
    residual = mx.ones((2, 3, 32), dtype=mx.bfloat16)
    carried = lens(residual, 0)
    assert carried.dtype == mx.bfloat16 and carried.shape == (2, 3, 32)
    assert make("llama", dtype=mx.bfloat16).jacobian_lens(TEXT, lens).layers == [0, 1, 2]


def test_four_bits(quantized):
    model = quantized("llama")
    lens = model.fit_jacobian_lens(["a" * 20], verbose=False)
    assert model.jacobian_lens(TEXT, lens).layers == [0, 1, 2]


def test_what_does_not_fit_is_refused(make, tmp_path):
    model, lens = make("llama"), a_lens()
    with pytest.raises(InputError, match="another model"):
        model.jacobian_lens(TEXT, a_lens(width=16))
    with pytest.raises(InputError, match="another model"):
        model.jacobian_lens(TEXT, a_lens(layers=(0, 5)))
    with pytest.raises(AddressError, match=r"fitted at layers \[0\], not at 1"):
        model.jacobian_lens(TEXT, a_lens(layers=(0,)), layers=[1])
    with pytest.raises(AddressError, match="9"):
        model.jacobian_lens(TEXT, lens, layers=[9])
    with pytest.raises(InputError, match="lens is a JacobianLens"):
        model.jacobian_lens(TEXT, 3)
    with pytest.raises(LoadError):
        model.jacobian_lens(TEXT, tmp_path / "none.pt")
    with pytest.raises(InputError, match="one prompt"):
        model.jacobian_lens([TEXT, TEXT], lens)
    with pytest.raises(AddressError, match="not at 7"):
        lens(mx.zeros((1, 32)), 7)
    with pytest.raises(InputError, match="32 wide, the residual stream 8"):
        lens(mx.zeros((1, 8)), 0)


def test_models_of_several_streams_are_refused(tmp_path):
    model = InterpretableModel(small_model("gemma3n"))
    with pytest.raises(PointAbsent, match="several residual streams"):
        model.jacobian_lens([1, 2, 3], a_lens())
