"""Attention heat maps with CircuitsVis, where that package is installed."""

from __future__ import annotations

import numpy as np

from mlxray.errors import InputError

from ..drawing.colors import colormap
from ..drawing.display import HtmlPicture
from ..drawing.labels import html_text, token_label
from .config import AttentionVisualizationConfig
from .panels import Panels


def draw(panels: Panels, config: AttentionVisualizationConfig) -> HtmlPicture:
    """CircuitsVis' interactive view as HTML, its program included: nothing is loaded from afar.

    Of `config` it takes `colorscale` (the darkest colour) and `mask_upper_tri`.
    """
    import circuitsvis.attention
    from matplotlib.colors import to_hex

    queries, keys = panels.shape
    if queries != keys:
        raise InputError(
            f"circuitsviz draws square patterns; these have {queries} queries and {keys} keys. "
            'Use backend="matplotlib" or "plotly".'
        )
    tokens = [_inert(token_label(token)) for token in panels.tokens]
    options = {
        "max_value": 1.0,
        "min_value": 0.0,
        "positive_color": to_hex(colormap(config.colorscale)(0.9)),
        "mask_upper_tri": config.mask_upper_tri,
    }
    weights = np.nan_to_num(np.stack([panel.weights for panel in panels.panels]), nan=0.0)
    names = [_inert(panel.title) for panel in panels.panels]
    if len(names) == 1:
        drawn = circuitsvis.attention.attention_pattern(tokens, weights[0], **options)
    else:
        drawn = circuitsvis.attention.attention_heads(
            weights, tokens, attention_head_names=names, **options
        )
    title = panels.title or panels.panels[0].title
    return HtmlPicture(f"<h3>{html_text(title)}</h3>\n{drawn.local_src}", title)


def _inert(text: str) -> str:
    """CircuitsVis writes texts into a script, where ``</script`` would end it.

    An invisible word joiner after ``<`` keeps the look and means nothing to HTML.
    """
    return text.replace("<", "<\u2060")
