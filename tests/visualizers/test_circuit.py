import itertools
import sys

import numpy as np
import pytest

from mlxray.analyses.circuits.circuit_result import CircuitResult, EdgeScoresResult, base_node
from mlxray.analyses.circuits.path_result import PathResult
from mlxray.errors import InputError
from mlxray.visualizers.circuits.layout import HALF, PORTS, lay_out
from mlxray.visualizers.circuits.picture import HALF_WIDTH

EDGES = [
    ("embed", "m0", -1.0),
    ("m0", "a3.h1.v", -0.5),
    ("embed", "a3.h1.q", 0.25),
    ("a3.h1", "m3", -0.4),
    ("a3.h1", "logits", 0.0),
    ("m3", "logits", -0.1),
]


def circuit(edges=EDGES, **more):
    options = {"threshold": None, "total_edges": 99, "faithfulness": 0.87, "method": "EAP-IG"}
    return CircuitResult(list(edges), **(options | more))


def random_edges(seed, count=40, layers=4, heads=3):
    """Edges between random parts, each from an earlier to a later one."""
    rng = np.random.default_rng(seed)
    order = [("embed", ["embed"])]
    for layer in range(layers):
        order.append((f"a{layer}", [f"a{layer}.h{h}" for h in range(heads)]))
        order.append((f"m{layer}", [f"m{layer}"]))
    order.append(("logits", ["logits"]))
    edges = {}
    while len(edges) < count:
        low, high = sorted(rng.choice(len(order), 2, replace=False))
        sender, receiver = rng.choice(order[low][1]), rng.choice(order[high][1])
        if receiver[0] == "a":
            receiver += "." + rng.choice(list("qkv"))
        edges[str(sender), str(receiver)] = float(rng.normal())
    return [(s, r, w) for (s, r), w in edges.items()]


@pytest.mark.parametrize("seed", range(4))
def test_edges_lead_up_from_sender_to_input_and_pass_behind_no_box(seed):
    edges = random_edges(seed)
    diagram = lay_out(edges)
    boxes = {node.name: node for node in diagram.nodes}
    assert sorted(arc.edge for arc in diagram.arcs) == sorted(edges)
    for arc in diagram.arcs:
        sender, receiver, _ = arc.edge
        start, end = boxes[sender], boxes[base_node(receiver)]
        assert arc.points[0] == pytest.approx((start.x, start.y + HALF))
        assert arc.points[-1][0] == pytest.approx(end.x + PORTS.get(arc.letter, 0.0))
        assert end.y - HALF - 0.1 < arc.points[-1][1] < end.y - HALF
        heights = [y for _, y in arc.points]
        assert heights == sorted(heights)
        for (x, y), node in itertools.product(arc.points[1:-1], diagram.nodes):
            inside = abs(x - node.x) < HALF_WIDTH and abs(y - node.y) < HALF - 1e-9
            assert not inside, (arc.edge, node.name)


@pytest.mark.parametrize("seed", range(4))
def test_boxes_do_not_overlap_and_share_the_row_of_their_layer(seed):
    diagram = lay_out(random_edges(seed))
    for a, b in itertools.combinations(diagram.nodes, 2):
        assert a.y != b.y or abs(a.x - b.x) > 2 * HALF_WIDTH
    for node in diagram.nodes:
        name = diagram.rows[int(node.y)]
        kind = {"head": "heads", "mlp": "MLP"}.get(node.kind)
        layer = node.name[1:].partition(".")[0]
        assert name == (f"layer {layer} {kind}" if kind else "")


def test_picture_shows_sign_weight_and_inputs():
    axes = circuit().plot(backend="matplotlib").axes[0]
    strokes = [line for line in axes.lines if line.get_linestyle() == "-"]
    widths = [line.get_linewidth() for line in strokes]
    assert widths == sorted(widths, reverse=True) and widths[0] > 4 * widths[-1]
    blue, *_, none = [line.get_color() for line in strokes]
    assert int(blue[5:], 16) > int(blue[1:3], 16)  # the strongest is negative
    red = next(line.get_color() for line in strokes if line.get_linewidth() == widths[3])
    assert int(red[1:3], 16) > int(red[5:], 16)
    assert none[1:3] == none[3:5] == none[5:]  # grey: no weight
    letters = {t.get_text(): t.get_color() for t in axes.texts if t.get_text() in PORTS}
    assert letters["q"] == letters["v"] == "black" != letters["k"]
    assert axes.figure.get_suptitle().startswith("EAP-IG circuit: 6 of 99 edges, faithfulness 87%")


def test_plotly_says_each_edges_weight():
    page = circuit().plot(backend="plotly")
    assert len(page.data) == len(EDGES)
    assert page.data[0].hovertext.startswith("embed → m0<br>estimated change")
    assert page.data[0].hovertext.endswith(": -1")
    assert {s.label.text for s in page.layout.shapes} == set(circuit().nodes)


@pytest.mark.parametrize("backend", ["matplotlib", "plotly"])
def test_the_strongest_edges_are_chosen(backend):
    figure = circuit().plot(backend=backend, edges=2)
    if backend == "plotly":
        assert len(figure.data) == 2 and "strongest 2 of 6" in figure.layout.title.subtitle.text
    else:
        assert "strongest 2 of 6 edges" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([], "no edges"),
        ([("embed", "$x$<b>", 1.0)], "no node of a circuit"),
        ([("m3", "a3.h0.q", 1.0)], "does not lead to a later part"),
        ([("m3", "m3", 1.0)], "does not lead to a later part"),
    ],
)
def test_what_is_no_circuit_is_refused(edges, message):
    with pytest.raises(InputError, match=message):
        circuit(edges).plot()


def test_number_of_edges_is_positive():
    with pytest.raises(InputError, match="at least 1; got 0"):
        circuit().plot(edges=0)


def test_hostile_titles_are_plain_text():
    result = circuit(method="$\\frac{ <b>")
    suptitle = result.plot(backend="matplotlib")._suptitle
    assert not suptitle.get_parse_math() and "$\\frac{" in suptitle.get_text()
    assert "&lt;b&gt;" in result.plot(backend="plotly").layout.title.text


def test_path_has_an_arrow_for_each_pair():
    result = PathResult(0.5, ["embed", "m0"], ["a1.h0.q", "a1.h0.k"], 7, "logit_diff")
    page = result.plot(backend="plotly")
    assert len(page.data) == 4 and "logit_diff +0.500" in page.layout.title.text
    heading = result.plot(backend="matplotlib").get_suptitle()
    assert "all paths together clean and 7 other senders frozen" in heading
    with pytest.raises(InputError, match="nothing to draw"):
        PathResult(0.5, [], ["m1"], 7, "l2").plot()


def test_scores_are_a_map_with_gaps_where_there_is_no_edge():
    scores = [("embed", "m0", -1.0), ("embed", "logits", 0.5), ("m0", "logits", 0.25)]
    result = EdgeScoresResult(scores, "EAP", 1.0, 0.0)
    axes = result.plot(backend="matplotlib").axes[0]
    drawn = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(drawn, [[-1.0, np.nan], [0.5, 0.25]])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["m0", "logits"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["embed", "m0"]
    assert axes.get_ylabel() == "receiver" and axes.get_xlabel() == "sender"
    page = result.plot(backend="plotly")
    assert page.data[0].z[0][1] is None
    assert "receiver logits, sender m0" in page.data[0].hovertext[1][1]


def test_scores_can_be_a_graph():
    scores = [("embed", "m0", -1.0), ("m0", "logits", 0.25), ("embed", "a0.h0.q", 0.5)]
    result = EdgeScoresResult(scores, "EAP", 1.0, 0.0)
    assert len(result.plot(backend="plotly", edges=3).data) == 2  # a0.h0 is a dead end
    with pytest.raises(InputError, match="no path from embed to logits"):
        result.plot(edges=1)
    with pytest.raises(InputError, match="nothing to draw"):
        EdgeScoresResult([], "EAP", 1.0, 0.0).plot()


@pytest.mark.parametrize("call", ["to_networkx", "to_graphml"])
def test_without_networkx_the_mend_is_named(monkeypatch, tmp_path, call):
    monkeypatch.setitem(sys.modules, "networkx", None)
    arguments = [tmp_path / "x.graphml"] if call == "to_graphml" else []
    with pytest.raises(ImportError, match=rf"{call}\(\) needs networkx.*mlxray\[graphs\]"):
        getattr(circuit(), call)(*arguments)
    assert not list(tmp_path.iterdir())


def test_graphml_holds_every_edge(tmp_path):
    networkx = pytest.importorskip("networkx")
    path = circuit().to_graphml(tmp_path / "circuit.graphml")
    graph = networkx.read_graphml(path)
    edges = {(s, d["input"], d["weight"]) for s, _, d in graph.edges(data=True)}
    assert edges == set(EDGES)
