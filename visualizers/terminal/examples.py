"""Where features are most active, token by token, each on a background that tells the value."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from mlxray import hookimpl, visualizer
from mlxray.analyses.features.examples_result import MaxActivatingResult
from mlxray.cli.terminal import heat
from mlxray.display import show_token
from mlxray.plugins import Visualizer

from ..drawing.measure import around

#: Cells of a token, and of the value before each line.
TOKEN, VALUE = 20, 9


@visualizer(MaxActivatingResult, backend="terminal")
def examples_in_terminal(result: MaxActivatingResult, *, width: int = 80) -> Group:
    """One line for each example, around the token that is meant.

    Args:
        result: The examples.
        width: Cells that a line may take.
    """
    parts = []
    for feature, active in zip(result.features, result.active, strict=True):
        own = result.of(feature)
        drawn = Text(no_wrap=True, overflow="crop")
        drawn.append(f"\nf{feature}", style="bold")
        drawn.append(f"  active on {active:.2%} of tokens", style="dim")
        largest = max((abs(v) for each in own for v in each["activations"]), default=0.0) or 1.0
        for each in own:
            drawn.append(f"\n{each['activation_value']:>{VALUE - 1}.3g} ", style="dim")
            labels = [show_token(token, TOKEN) for token in each["tokens"]]
            shown = around([cell_len(label) for label in labels], each["at"], width - VALUE)
            for place in range(len(labels))[shown]:
                style = heat(abs(each["activations"][place]) / largest)
                if place == each["at"]:
                    style += " underline"
                drawn.append(labels[place], style=style)
        parts.append(drawn)
    return Group(*parts)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """The drawing above."""
    return [examples_in_terminal]
