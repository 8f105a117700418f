"""What `import mlxray` brings in, in fresh interpreters."""

import subprocess
import sys
import textwrap

HEAVY = ("matplotlib", "plotly", "anthropic", "transformers", "mlx_lm")


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_is_light():
    done = run(
        f"""
        import sys
        import mlxray
        print([name for name in {HEAVY!r} if name in sys.modules])
        """
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_linux_without_a_backend_gets_one_line():
    done = run(
        """
        import sys

        class NoBackend:
            def find_spec(self, name, path=None, target=None):
                if name == "mlx.core":
                    raise ImportError("libmlx.so: cannot open shared object file")

        sys.meta_path.insert(0, NoBackend())
        import mlxray

        print(mlxray.__version__)
        mlxray.InterpretableModel
        """
    )
    assert done.returncode == 1
    assert done.stdout, "mlxray itself is there, so that the command line can tell"
    assert done.stderr.splitlines()[-1].startswith("ImportError: MLX")
    assert "pip install" in done.stderr.splitlines()[-1]
