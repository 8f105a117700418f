import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.causal.logit_attribution.result import DLAResult
from mlxray.errors import InputError


def parts(heads=True, **more):
    split = {2: mx.array([0.5, -2.0]), 5: mx.array([3.0, 0.0])} if heads else {}
    options = {
        "head_contributions": mx.array([-1.5, 3.0]),
        "mlp_contributions": mx.array([0.25, 1.0]),
        "target_token": 7,
        "target_token_str": " $a$",
        "layers": [2, 5],
        "tokens": ["x"],
        "position": 0,
        "embedding": 0.125,
        "other_layers": 0.0,
        "constant": 0.0,
        "logit": 2.875,
        "heads": split,
        "attention_bias": mx.zeros(2),
    }
    return DLAResult(**(options | more))


NAMES = ["embed", "a2.h0", "a2.h1", "m2", "a5.h0", "a5.h1", "m5"]
VALUES = [0.125, 0.5, -2.0, 0.25, 3.0, 0.0, 1.0]


def test_bars_are_the_parts_in_order():
    axes = parts().plot(backend="matplotlib").axes[0]
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], VALUES)
    assert [t.get_text() for t in axes.get_xticklabels()] == NAMES
    assert "all 7 parts sum to +2.88" in axes.figure.get_suptitle()
    page = parts().plot(backend="plotly")
    np.testing.assert_allclose(page.data[0].y, VALUES)
    assert page.data[0].hovertext[2].startswith("part of the model a2.h1<br>")


def test_the_strongest_are_chosen_and_keep_their_order():
    axes = parts().plot(backend="matplotlib", top=3).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a2.h1", "a5.h0", "m5"]
    assert "strongest 3 of 7 parts" in axes.figure.get_suptitle()


def test_map_has_heads_and_mlp_and_says_the_rest():
    axes = parts().plot(backend="matplotlib", style="map").axes[0]
    expected = [[0.5, -2.0, 0.25], [3.0, 0.0, 1.0]]
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["head 0", "head 1", "MLP"]
    assert "+0.12, sum +2.88" in axes.figure.get_suptitle()
    page = parts().plot(backend="plotly", style="map")
    np.testing.assert_allclose(np.array(page.data[0].z, dtype=float), expected)


def test_map_without_heads_has_whole_attention():
    result = parts(heads=False)
    axes = result.plot(backend="matplotlib", style="map").axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[-1.5, 0.25], [3.0, 1.0]])


def test_tokens_are_plain_text():
    result = parts(incorrect_token=8, incorrect_token_str="<b>")
    heading = result.plot(backend="matplotlib")._suptitle
    assert "␣$a$" in heading.get_text() and not heading.get_parse_math()
    title = result.plot(backend="plotly").layout.title.text
    assert "&#36;a&#36;" in title and "&lt;b&gt;" in title


@pytest.mark.parametrize(
    ("options", "message"),
    [({"style": "barz"}, "bars"), ({"top": 0}, "at least 1; got 0")],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        parts().plot(**options)


def test_map_of_no_layers_is_refused():
    result = parts(
        layers=[], heads={}, head_contributions=mx.zeros(0), mlp_contributions=mx.zeros(0)
    )
    with pytest.raises(InputError, match="no layers were told apart"):
        result.plot(style="map")
