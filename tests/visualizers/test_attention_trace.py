import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import llama

from mlxray import InterpretableModel
from mlxray.errors import AddressError, InputError
from mlxray.visualizers import AttentionVisualizationConfig, attention_from_trace

IDS = [[3, 1, 4, 1, 5]]
TOKENS = ["c", "a", "d", "a", "e"]


@pytest.fixture(scope="module")
def model():
    mx.random.seed(0)
    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=16,
        num_hidden_layers=3,
        intermediate_size=24,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        vocab_size=11,
    )
    return InterpretableModel(llama.Model(arguments))


@pytest.fixture(scope="module")
def trace(model):
    with model.trace(mx.array(IDS)) as trace:
        pass
    return trace


@pytest.fixture(scope="module")
def patterns(model):
    """Softmax of the scores q·k that the model's own modules give, written out."""
    found = model.activations(mx.array(IDS), [(p, i) for i in range(3) for p in ("q", "k")])
    result = {}
    for layer in range(3):
        q, k = (np.array(found[point, layer])[0].astype(np.float64) for point in ("q", "k"))
        k = np.repeat(k, 2, axis=0)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(4)
        weights = np.exp(scores) * np.tril(np.ones((5, 5)))
        result[layer] = weights / weights.sum(-1, keepdims=True)
    return result


MATPLOTLIB = AttentionVisualizationConfig(backend="matplotlib")


def shown(axes):
    image = axes.images[0].get_array()
    return np.where(np.ma.getmaskarray(image), 0, image.data)


def test_the_first_head_of_the_first_layer(trace, patterns):
    figure = attention_from_trace(trace, TOKENS, config=MATPLOTLIB)
    axes, _ = figure.axes
    np.testing.assert_allclose(shown(axes), patterns[0][0], atol=1e-5)
    assert axes.get_title() == "L0H0"
    assert tuple(figure.get_size_inches()) == (10, 8)


def test_a_grid(trace, patterns):
    config = AttentionVisualizationConfig(
        colorscale="Reds",
        mask_upper_tri=False,
        backend="matplotlib",
        figsize=(6, 5),
        show_colorbar=False,
        font_size=7,
    )
    figure = attention_from_trace(
        trace, TOKENS, layers=[0, -1], heads=[1, 3], mode="grid", head_notation="dot", config=config
    )
    assert [a.get_title() for a in figure.axes] == ["0.1", "0.3", "2.1", "2.3"]
    for axes, (layer, head) in zip(figure.axes, [(0, 1), (0, 3), (2, 1), (2, 3)], strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), patterns[layer][head], atol=1e-5)
        assert axes.images[0].get_cmap().name == "Reds"
    assert tuple(figure.get_size_inches()) == (6, 5)
    assert figure.axes[-1].get_xticklabels()[0].get_fontsize() == 7


def test_plotly(trace, patterns):
    config = AttentionVisualizationConfig(backend="plotly", show_colorbar=False)
    figure = attention_from_trace(trace, TOKENS, [1], [2], config=config)
    z = np.array(figure.data[0].z, dtype=object)
    assert z[4].tolist() == pytest.approx(patterns[1][2][4].tolist(), abs=1e-5)
    assert z[0, 1] is None
    assert not figure.layout.coloraxis.showscale
    assert figure.layout.width == 800


def test_one_run_fetches_all_layers(model, trace, monkeypatch):
    with model.trace(mx.array(IDS)) as fresh:
        pass
    calls = []
    original = fresh._start
    monkeypatch.setattr(fresh, "_start", lambda **more: calls.append(1) or original(**more))
    attention_from_trace(fresh, TOKENS, [0, 1, 2], [0], mode="grid", config=MATPLOTLIB)
    assert len(calls) == 1


def test_what_does_not_fit_is_refused(model, trace):
    with pytest.raises(InputError, match="mode='grid'"):
        attention_from_trace(trace, TOKENS, layers=[0, 1], config=MATPLOTLIB)
    with pytest.raises(InputError, match="'single' or 'grid'"):
        attention_from_trace(trace, TOKENS, mode="rows", config=MATPLOTLIB)
    with pytest.raises(AddressError, match="no layer 3"):
        attention_from_trace(trace, TOKENS, layers=[3], config=MATPLOTLIB)
    with pytest.raises(InputError, match="no head 4 in layer 1"):
        attention_from_trace(trace, TOKENS, [1], [4], config=MATPLOTLIB)
    with pytest.raises(InputError, match="4 tokens"):
        attention_from_trace(trace, TOKENS[1:], config=MATPLOTLIB)
    with model.trace(mx.array(IDS * 2)) as two:
        pass
    with pytest.raises(InputError, match="2 prompts"):
        attention_from_trace(two, TOKENS, config=MATPLOTLIB)
