import subprocess
import sys
import textwrap
import threading
from types import ModuleType, SimpleNamespace

import pytest

from mlxray.plugins.registry import registry
from mlxray.results.table import TableResult
from mlxray.visualizers.drawing.display import HtmlPicture

TABLE = TableResult({"layer": [0, 1], "entropy": [0.5, 0.25]})


@pytest.fixture
def notebook(monkeypatch):
    """A stand-in for a notebook's IPython; gives what was displayed."""
    shown = []
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())
    ipython.display = display
    ipython.version_info = (9, 0)
    display.display = shown.append
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def test_a_notebook_shows_the_picture(notebook):
    figure = TABLE.plot(backend="matplotlib")
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.show()
    page = TABLE.plot(backend="html")
    page.show()
    assert notebook == [figure, page]


def test_pyplot_knows_nothing_of_it():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    TABLE.plot(backend="matplotlib")
    assert pyplot.get_fignums() == before


def test_without_a_display_showing_says_so():
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    with pytest.warns(UserWarning, match="save it to a file"):
        TABLE.plot(backend="matplotlib").show()
    assert pyplot.get_fignums() == []


def test_a_window_is_lent_where_there_is_one(monkeypatch):
    from matplotlib import pyplot
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    pyplot.switch_backend("agg")
    monkeypatch.setattr(FigureCanvasAgg, "required_interactive_framework", "stand-in", False)
    shown = []
    monkeypatch.setattr(
        pyplot, "show", lambda: shown.append(pyplot.get_current_fig_manager().canvas.figure)
    )
    figure = TABLE.plot(backend="matplotlib")
    size = tuple(figure.get_size_inches())
    figure.show()
    assert shown == [figure]
    assert tuple(figure.get_size_inches()) == size
    pyplot.close("all")


def test_html_opens_in_the_browser(monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(uri) or True)
    HtmlPicture("<p>x</p>", "t").show()
    assert opened[0].startswith("file:") and opened[0].endswith(".html")
    monkeypatch.setattr("webbrowser.open", lambda uri: False)
    with pytest.warns(UserWarning, match="no browser"):
        HtmlPicture("<p>x</p>", "t").show()


def test_threads_draw_at_once():
    found = []

    def work():
        found.append(TABLE.plot(backend="matplotlib")._repr_png_()[:4])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"\x89PNG"] * 4


def test_registering_imports_no_drawing_library():
    script = """
        import importlib, sys
        from importlib.metadata import entry_points
        from mlxray.visualizers import attention_heatmap, attention_from_trace
        from mlxray.visualizers import AttentionVisualizationConfig, token_label
        files = [e.value for e in entry_points(group="mlxray")]
        drawing = [f for f in files if f.startswith("mlxray.visualizers.")]
        for file in drawing:
            importlib.import_module(file)
        assert len(drawing) >= 8
        print([m for m in ("numpy", "matplotlib", "plotly", "IPython") if m in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_every_type_of_result_has_both_backends():
    having = {}
    for item in registry.all("visualizer"):
        having.setdefault(item.result.__name__, set()).add(item.backend)
    for name in ("LensResult", "HeadScoresResult", "PatchingResult"):
        assert having[name] >= {"matplotlib", "plotly"}
    assert having["AttentionResult"] >= {"matplotlib", "plotly", "circuitsviz"}
    assert having["TableResult"] >= {"matplotlib", "plotly", "html"}
