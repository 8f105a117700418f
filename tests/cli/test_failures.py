"""Exit codes, and errors of one line."""

import io
import sys
import warnings

import pytest
import typer

from mlxray import TableResult, analysis
from mlxray.cli.failures import guard, message, take_debug
from mlxray.errors import EditError, InputError, LoadError, PluginError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("the prompt is empty."), 2, "mlxray: the prompt is empty."),
        (LoadError("no such\n  folder"), 2, "mlxray: no such folder"),
        (PluginError("there is none"), 2, "mlxray: there is none"),
        (EditError("wrong shape"), 1, "mlxray: EditError: wrong shape (--debug shows where)"),
        (ZeroDivisionError("by zero"), 1, "mlxray: ZeroDivisionError: by zero (--debug"),
        (KeyError(), 1, "mlxray: KeyError (--debug shows where)"),
        (RuntimeError("\x1b[31m[red]"), 1, "mlxray: RuntimeError: \\x1b[31m[red] (--debug"),
        (typer.BadParameter("no."), 2, "mlxray: Invalid value: no."),
        (KeyboardInterrupt(), 130, "mlxray: interrupted"),
        (typer.Exit(3), 3, ""),
    ],
)
def test_exit_code_and_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
):
    def work() -> None:
        raise error

    assert guard(work, debug=False) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)
    assert err.count("\n") == bool(said)
    assert "\x1b" not in err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]):
    def work() -> None:
        raise InputError("bad \x1b[31m")

    assert guard(work, debug=True) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "in work" in err
    assert err.endswith("mlxray.errors.InputError: bad \\x1b[31m\n")


def test_take_debug():
    assert take_debug(["lens", "--debug", "x"]) == (["lens", "x"], True)
    assert take_debug(["lens", "--", "--debug"]) == (["lens", "--", "--debug"], False)
    assert take_debug(["lens"]) == (["lens"], False)


def test_debug_works_before_and_behind_the_command(mlxray):
    for words in (("--debug", "lens", "--layers", "99"), ("lens", "--layers", "99", "--debug")):
        outcome = mlxray(*words)
        assert outcome.code == 2
        assert outcome.err.startswith("Traceback")
        assert "mlxray.errors.AddressError: there is no layer 99" in outcome.err


def test_warnings_are_one_line_on_stderr(mlxray, provide):
    @analysis
    def warns(model) -> TableResult:
        """Warns."""
        warnings.warn("mind the\ngap", UserWarning, stacklevel=1)
        return TableResult({"x": [1]})

    provide(warns)
    before = warnings.showwarning
    outcome = mlxray("run", "warns", "--json")
    assert outcome.err == "mlxray: warning: mind the gap\n"
    assert outcome.json()["data"] == {"columns": {"x": [1]}, "title": ""}
    assert warnings.showwarning is before


def test_a_run_that_fails(mlxray, provide):
    @analysis
    def fails(model, text: str) -> TableResult:
        """Fails."""
        raise ValueError("the middle\nis lost")

    @analysis
    def lies(model) -> TableResult:
        """Returns something else."""
        return 3  # type: ignore[return-value]

    provide(fails, lies)
    outcome = mlxray("run", "fails", "x")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "mlxray: ValueError: the middle is lost (--debug shows where)\n"
    outcome = mlxray("run", "lies")
    assert outcome.code == 1
    assert "analysis 'lies' returned int" in outcome.err


def test_interrupt_inside_an_analysis(mlxray, provide):
    @analysis
    def stops(model) -> TableResult:
        """Is interrupted."""
        raise KeyboardInterrupt

    provide(stops)
    outcome = mlxray("run", "stops")
    assert outcome.code == 130
    assert outcome.err == "mlxray: interrupted\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lns",), "there is no command 'lns'. Did you mean 'lens' or 'plugins'?"),
        (("zzz",), "there is no command 'zzz'. Known: 'attention', 'dictionary', 'doctor', "),
        (("lens", "--zzz"), "`mlxray lens --help` shows what there is."),
        (("lens", "The", "capital"), "put a text of several words in quotes"),
        (("--what",), "--what"),
    ],
)
def test_wrong_usage(mlxray, words: tuple[str, ...], said: str):
    outcome = mlxray(*words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


def test_text_without_a_tokenizer(mlxray, checkpoint):
    for words in (("lens", "Hi"), ("run", "logit_lens", "Hi")):
        outcome = mlxray(*words, "--model", checkpoint)
        assert outcome.code == 2
        assert "add tokenizer.json to its folder" in outcome.err
        assert outcome.err.count("\n") == 1


def test_a_damaged_checkpoint(mlxray, checkpoint, tmp_path):
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    weights = (checkpoint / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-100])
    outcome = mlxray("points", tmp_path)
    assert outcome.code == 2
    assert "the last 100 bytes are missing" in outcome.err


def test_message_has_one_line():
    assert message(InputError("a\n\n  b")) == "a b"


def test_output_that_the_stream_cannot_take(monkeypatch: pytest.MonkeyPatch):
    from mlxray.cli.terminal import print_json

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    print_json('{"a": "é"}')
    sys.stdout.flush()
    assert raw.getvalue() == b'{"a": "\\u00e9"}\n'
