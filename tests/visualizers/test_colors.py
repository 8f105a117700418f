import numpy as np
import pytest
from matplotlib.colors import to_hex

from mlxray.errors import InputError
from mlxray.visualizers.drawing.colors import (
    CATEGORIES,
    NOTHING,
    SIGNED,
    colormap,
    ink,
    plotly_scale,
)


def test_signed_is_blue_white_red():
    signed = colormap(SIGNED)
    assert [to_hex(signed(x)) for x in (0.0, 1.0)] == ["#2166ac", "#b2182b"]
    assert min(signed(0.5)[:3]) > 0.95


def test_a_name_in_any_case():
    assert colormap("Viridis")(0.3) == colormap("viridis")(0.3)
    assert colormap("blues")(0.9) == colormap("Blues")(0.9)
    assert colormap("RdBu_r")(0.0) == colormap("RdBu")(1.0)


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(InputError, match="'viridis'"):
        colormap("virids")


def test_gaps_are_grey_and_the_global_map_is_left_alone():
    import matplotlib

    assert to_hex(colormap("viridis")(np.ma.masked)) == NOTHING
    assert to_hex(matplotlib.colormaps["viridis"](np.ma.masked)) != NOTHING


def test_plotly_gets_the_same_colours():
    scale = plotly_scale("viridis")
    assert scale[0][0] == 0 and scale[-1][0] == 1
    for fraction, color in scale:
        assert color == to_hex(colormap("viridis")(fraction))


def luminance(rgb):
    """As WCAG 2 defines it."""
    value = np.asarray(rgb)
    value = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return float(value @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", ["viridis", "Blues", SIGNED])
def test_ink_is_the_better_of_black_and_white(name):
    for color in colormap(name)(np.linspace(0, 1, 101)):
        light = luminance(color[:3])
        black, white = (light + 0.05) / 0.05, 1.05 / (light + 0.05)
        if abs(black - white) > 0.05:
            assert ink(color) == ("black" if black > white else "white")
        assert max(black, white) >= 4.5


def test_categories_carry_black_text():
    assert {ink(color) for color in CATEGORIES} == {"black"}
