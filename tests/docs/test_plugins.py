"""A stranger's package in a fresh environment, one that cannot be imported, and one that copies.

The packages are installed with pip, without network, into an environment that sees the packages
of the one that runs the tests.
"""

import json
import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
STRANGER = ROOT / "docs/plugins/mlxray-entropy"
PROMPT = "The capital of France is"

pytestmark = pytest.mark.xdist_group("plugins")

BROKEN = "import a_package_that_is_not_installed\n"

COPYCAT = """
from mlxray import TableResult, analysis, hookimpl

@analysis
def logit_lens(model, text: str) -> TableResult:
    return TableResult({"copied": [text]})

@analysis
def copycat_lens(model, text: str) -> TableResult:
    return TableResult({"layers": [len(model.layers)]})

@hookimpl
def mlxray_analyses():
    return [logit_lens, copycat_lens]
"""


def write_package(folder: Path, name: str, version: str, source: str) -> Path:
    """A package of one module that announces itself to mlxray."""
    module = name.replace("-", "_")
    project = (STRANGER / "pyproject.toml").read_text(encoding="utf-8")
    for old, new in (
        ("mlxray-entropy", name),
        ("mlxray_entropy", module),
        ("entropy =", f"{module.removeprefix('mlxray_')} ="),
        ("0.2.0", version),
    ):
        assert old in project
        project = project.replace(old, new)
    folder.mkdir()
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    return folder


class Environment:
    """A virtual environment that sees this one's packages, and what is installed into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, symlinks=True, with_pip=False)
        places = {"base": str(folder), "platbase": str(folder)}
        own = Path(sysconfig.get_path("purelib", "posix_prefix", places))
        seen = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        lines = [f"import site; site.addsitedir({place!r})\n" for place in sorted(seen)]
        (own / "_outer.pth").write_text("".join(lines), encoding="utf-8")
        self.python = folder / "bin/python"

    def run(self, *arguments: object, code: int = 0) -> str:
        """Run the environment's Python; what it printed."""
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env={k: v for k, v in os.environ.items() if not k.startswith(("MLXRAY_", "PYTEST"))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def mlxray(self, *arguments: object, code: int = 0) -> str:
        """Run mlxray's command line."""
        return self.run("-m", "mlxray.cli", *arguments, code=code)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("plugins")
    # A copy, since a build leaves files beside the source.
    entropy = shutil.copytree(STRANGER, folder / "entropy")
    broken = write_package(folder / "broken", "mlxray-broken", "1.0", BROKEN)
    copycat = write_package(folder / "copycat", "mlxray-copycat", "3.1", COPYCAT)
    made = Environment(folder / "environment")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    made.run("-m", "pip", "install", *options, entropy, broken, copycat)
    return made


@pytest.fixture(scope="session")
def seen(environment: Environment) -> dict[str, Any]:
    """What a script finds there."""
    script = environment.folder / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    found: dict[str, Any] = json.loads(environment.run(script, PROMPT))
    return found


SCRIPT = """
import json, sys, warnings
import mlxray
import mlx.core as mx
from mlx_lm.models import llama
from mlxray import InterpretableModel, registry

found = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found["rows"] = [[r.name, r.kind, r.distribution, r.version, r.status] for r in registry.rows()]
found["warnings"] = sorted(str(w.message) for w in caught)

pocket = InterpretableModel("pocket")
result = pocket.entropy_by_layer(sys.argv[1])
found["type"], found["columns"] = type(result).__name__, result.columns
figure = result.plot()
found["figure"] = type(figure).__module__
found["drawn"] = [float(y) for y in figure.axes[0].lines[0].get_ydata()]
found["copycat_lens"] = pocket.copycat_lens("anything").columns
found["logit_lens"] = type(pocket.logit_lens(sys.argv[1])).__name__

sure, unsure = mx.array([[[9.0, 0, 0, 0]]]), mx.zeros((1, 1, 4))
metric = registry.get("metric", "entropy_recovery")
found["metric"] = [metric(sure, sure, unsure), metric(unsure, sure, unsure)]
from mlxray.analyses.metrics import get_metric
found["alias"] = get_metric("entropy")(sure, sure, unsure)

class Block(llama.TransformerBlock):
    def __init__(self, args):
        super().__init__(args)
        self.feed_forward = self.pop("mlp")

    def __call__(self, x, mask=None, cache=None):
        h = x + self.self_attn(self.input_layernorm(x), mask, cache)
        return h + self.feed_forward(self.post_attention_layernorm(h))

class Lantern(llama.Model):
    def __init__(self, args):
        super().__init__(args)
        self.model.layers = [Block(args) for _ in range(args.num_hidden_layers)]

args = llama.ModelArgs(
    model_type="lantern", hidden_size=16, num_hidden_layers=2, intermediate_size=32,
    num_attention_heads=2, rms_norm_eps=1e-5, vocab_size=32,
)
lantern = InterpretableModel(Lantern(args))
found["adapter"] = lantern.adapter.name
with lantern.trace([1, 2, 3]) as trace:
    mlp = trace.save("layers.1.mlp_out")
    add = trace.read("layers.1.resid_post") - trace.read("layers.1.resid_mid")
    found["mlp_difference"] = mx.max(mx.abs(mlp - add)).item()

json.dump(found, sys.stdout)
"""


def status(seen: dict[str, Any], name: str, distribution: str) -> list[str]:
    """(kind, version, status) of the one row of that name."""
    (row,) = [r for r in seen["rows"] if r[0] == name and r[2] == distribution]
    return [row[1], row[3], row[4]]


def test_package_is_under_eighty_lines():
    files = [file for file in STRANGER.iterdir() if file.is_file()]
    assert len(files) == 2
    assert sum(len(file.read_text("utf-8").splitlines()) for file in files) < 80


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("entropy_by_layer", "analysis"),
        ("entropy_recovery", "metric"),
        ("entropy_line", "visualizer"),
        ("lantern", "adapter"),
    ],
)
def test_registry_has_all_four(seen: dict[str, Any], name: str, kind: str):
    assert status(seen, name, "mlxray-entropy") == [kind, "0.2.0", "ok"]


def test_analysis_is_a_method_of_the_model(seen: dict[str, Any]):
    import mlx.core as mx

    from mlxray import InterpretableModel

    model = InterpretableModel("pocket")
    logits = model.run_with_hooks(PROMPT)[0, -1]
    p = mx.softmax(logits)
    assert seen["type"] == "EntropyResult"
    assert seen["columns"]["layer"] == list(range(len(model.layers)))
    # The last layer's prediction is the model's own.
    assert seen["columns"]["entropy"][-1] == pytest.approx(-(p * mx.log(p)).sum().item(), rel=1e-4)


def test_picture_shows_the_numbers(seen: dict[str, Any]):
    assert seen["figure"] == "matplotlib.figure"
    assert seen["drawn"] == pytest.approx(seen["columns"]["entropy"])


def test_metric_is_found_by_name_and_alias(seen: dict[str, Any]):
    assert seen["metric"] == pytest.approx([1.0, 0.0])
    assert seen["alias"] == pytest.approx(1.0)


def test_adapter_is_chosen_by_the_type_of_the_model(seen: dict[str, Any]):
    assert seen["adapter"] == "lantern"
    assert seen["mlp_difference"] < 1e-5


def test_broken_plugin_shows_its_reason_and_stops_nothing(seen: dict[str, Any]):
    kind, version, text = status(seen, "broken", "mlxray-broken")
    assert (kind, version) == ("-", "1.0")
    assert text == "failed: No module named 'a_package_that_is_not_installed'"


def test_taken_name_is_refused_and_the_rest_of_that_plugin_works(seen: dict[str, Any]):
    kind, version, text = status(seen, "logit_lens", "mlxray-copycat")
    assert (kind, version) == ("analysis", "3.1")
    assert text == "refused: analysis 'logit_lens' is already provided by mlxray"
    assert status(seen, "logit_lens", "mlxray")[2] == "ok"
    assert seen["logit_lens"] == "LensResult"
    assert status(seen, "copycat_lens", "mlxray-copycat")[2] == "ok"
    assert seen["copycat_lens"]["layers"] == [len(seen["columns"]["layer"])]


def test_each_fault_is_warned_about_once_and_nothing_else_is(seen: dict[str, Any]):
    copied, broken = seen["warnings"]
    assert "mlxray-broken" in broken
    assert "mlxray-copycat" in copied
    faulty = [row for row in seen["rows"] if row[4] != "ok"]
    assert sorted(row[2] for row in faulty) == ["mlxray-broken", "mlxray-copycat"]


def test_plugins_command_lists_all_with_their_status(environment: Environment):
    listed = json.loads(environment.mlxray("plugins", "--json"))
    rows = {(row["name"], row["from"]): row["status"] for row in listed}
    assert rows["entropy_by_layer", "mlxray-entropy 0.2.0"] == "ok"
    assert rows["broken", "mlxray-broken 1.0"].startswith("failed: No module named")
    assert rows["logit_lens", "mlxray-copycat 3.1"].startswith("refused")


def test_run_command_runs_the_analysis(environment: Environment, seen: dict[str, Any]):
    printed = environment.mlxray("run", "entropy_by_layer", PROMPT, "--json")
    assert json.loads(printed)["data"]["columns"]["entropy"] == pytest.approx(
        seen["columns"]["entropy"]
    )


def test_run_command_takes_options_from_the_signature(environment: Environment):
    picture = environment.folder / "entropy.png"
    environment.mlxray("run", "entropy_by_layer", PROMPT, "--layers", "0,2", "--save", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
