"""Shares and mixtures of binding mechanisms with plotly."""

from __future__ import annotations

from typing import Any

from ..drawing.labels import plotly_text
from ..drawing.measure import labelled
from ..drawing.plotly_figure import framed, positions
from .binding_views import CARRIED, COLORS, SIZES, MixtureView, Stacks


def stacks(view: Stacks, figsize: tuple[float, float] | None) -> Any:
    """Stacked bars of each layer's shares, panel beside panel, one legend."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    width, height = figsize or view.size
    titles = [plotly_text(panel.title) for panel in view.panels]
    figure = make_subplots(
        1, len(titles), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.6 / width
    )
    figure.update_annotations(font={"size": 12})
    for column, panel in enumerate(view.panels, start=1):
        places = list(range(len(panel.layers)))
        for name, shares in panel.shares.items():
            bar = go.Bar(
                x=places,
                y=shares,
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                marker={"color": COLORS[name]},
                customdata=panel.layers,
                hovertemplate=f"layer %{{customdata}}<br>{name}: %{{y:.1%}}<extra></extra>",
            )
            figure.add_trace(bar, 1, column)
        if panel.carried is not None:
            line = go.Scatter(
                x=places,
                y=panel.carried,
                name=CARRIED,
                legendgroup="carried",
                showlegend=column == 1,
                mode="lines+markers",
                line={"color": "black", "dash": "dash", "width": 1},
                customdata=panel.layers,
                hovertemplate="layer %{customdata}<br>answer carried: %{y:.1%}<extra></extra>",
            )
            figure.add_trace(line, 1, column)
        labels = [str(layer) for layer in panel.layers]
        every = labelled(len(labels), 0.3, (width - 2.2) / len(titles))
        axis = positions(labels, every, title={"text": "layer"})
        figure.update_xaxes(axis, row=1, col=column)
    framed(figure, view.title, (width, height + 0.6), note=view.note)
    figure.update_layout(barmode="stack", bargap=0.15, legend={"traceorder": "reversed"})
    figure.update_layout(margin={"t": 165})
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%")
    figure.update_yaxes(title={"text": "share of runs"}, col=1)
    return figure


def mixture(view: MixtureView, figsize: tuple[float, float] | None) -> Any:
    """Strengths by group, the Gaussian's width by group, and bars of agreement."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 3, horizontal_spacing=0.13, column_widths=[0.36, 0.3, 0.34])
    groups = list(range(len(view.mixture.width)))
    lines = [(name, values, 1) for name, values in view.strengths.items()]
    lines.append(("positional", view.mixture.width, 2))
    for name, values, column in lines:
        line = go.Scatter(
            x=groups,
            y=[value if value == value else None for value in values],  # noqa: PLR0124
            name=name,
            legendgroup=name,
            showlegend=column == 1,
            mode="lines+markers",
            line={"color": COLORS[name]},
            marker={"size": SIZES[name]},
            hovertemplate=f"group %{{x}}<br>{name}: %{{y:.2f}}<extra></extra>",
        )
        figure.add_trace(line, 1, column)
    names = [bar[0] for bar in view.bars]
    similarities = [bar[1] for bar in view.bars]
    figure.add_trace(
        go.Bar(
            x=similarities,
            y=names,
            orientation="h",
            marker={"color": ["#555555" if n == "mixture" else "#bbbbbb" for n in names]},
            text=[f"{value:.2f}" for value in similarities],
            textposition="outside",
            cliponaxis=False,
            showlegend=False,
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        ),
        1,
        3,
    )
    framed(figure, view.title, figsize or (15.0, 5.2), note=view.note)
    for column in (1, 2):
        every = labelled(len(groups), 0.3, 4.0)
        axis = positions([str(i) for i in groups], every, title={"text": "group pointed to"})
        figure.update_xaxes(axis, row=1, col=column)
    figure.update_yaxes(title={"text": "logit added to that group"}, col=1)
    figure.update_yaxes(
        title={"text": "width σ of the Gaussian (groups)"}, rangemode="tozero", col=2
    )
    figure.update_yaxes(autorange="reversed", col=3)
    figure.update_xaxes(title={"text": "Jensen–Shannon similarity"}, range=[0, 1.15], col=3)
    figure.update_layout(legend={"orientation": "h", "y": -0.2})
    return figure
