"""The command line as a process: what it loads, its pipes and signals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

HEAVY = ("mlx_lm", "transformers", "matplotlib", "plotly", "anthropic")


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["--help"], HEAVY),
        (["lens", "--help"], HEAVY),
        (["doctor", "--help"], (*HEAVY, "numpy", "mlxray.model")),
        (["plugins"], HEAVY),
        (["run"], HEAVY),
    ],
)
def test_nothing_heavy_is_loaded(words: list[str], heavy: tuple[str, ...]):
    script = (
        "import sys\nfrom mlxray.cli import main\n"
        f"code = main({words!r})\n"
        f"loaded = [name for name in {heavy!r} if name in sys.modules]\n"
        "sys.exit(f'loaded {loaded}' if loaded else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_version_and_help(process):
    import mlxray

    outcome = process("--version")
    assert (outcome.code, outcome.out) == (0, f"mlxray {mlxray.__version__}\n")
    for words in ((), ("--help",), ("-h",)):
        outcome = process(*words)
        assert outcome.code == 0
        for command in ("lens", "attention", "run", "plugins", "points", "verify", "doctor"):
            assert f" {command} " in outcome.out


def test_piped_output_has_no_colours(process):
    outcome = process("lens", COLUMNS="80")
    assert (outcome.code, outcome.err) == (0, "")
    assert "Paris" in outcome.out
    assert "\x1b" not in outcome.out


def test_json_stands_alone(process):
    outcome = process("lens", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out)["result_type"] == "lens"


def test_colours_on_demand(process):
    outcome = process("run", FORCE_COLOR="1", TERM="xterm-256color")
    assert "\x1b[" in outcome.out


def test_errors_go_to_stderr_alone(process):
    outcome = process("points", "/no/such/folder")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("mlxray: there is no folder '/no/such/folder'. Give ")
    assert outcome.err.count("\n") == 1
    assert "Traceback" in process("points", "/no/such/folder", "--debug").err


@contextlib.contextmanager
def started(script: str) -> Iterator[Any]:
    """A process that runs `work`, which the script defines, as a command."""
    script = f"import sys\nfrom mlxray.cli.failures import guard\n{textwrap.dedent(script)}"
    script += "sys.exit(guard(work, debug=False))\n"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        yield running


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise there")
@pytest.mark.parametrize(
    "line",
    ["sys.stdout.write('x' * 10**6)", "output().print('x' * 10**6)", "print_json([1] * 10**6)"],
)
def test_a_reader_that_leaves_is_no_error(line: str):
    """As in ``mlxray points | head -1``."""
    script = f"""
        from mlxray.cli.terminal import output, print_json
        def work():
            {line}
    """
    with started(script) as running:
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait() == 141


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
def test_interrupt_is_told_in_one_line():
    # Programs that a shell starts in the background ignore Ctrl-C, and so do their children.
    script = """
        import signal, time
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def work():
            sys.stdout.write("started\\n")
            sys.stdout.flush()
            time.sleep(60)
    """
    with started(script) as running:
        assert running.stdout.readline() == "started\n"
        running.send_signal(signal.SIGINT)
        assert running.stderr.read() == "mlxray: interrupted\n"
        assert running.wait() == 130
