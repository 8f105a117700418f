"""A save that fails, wherever it fails, leaves what was there before; reading never waits."""

from __future__ import annotations

import ast
import errno
import io
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import mlxray
from mlxray import TableResult, TunedLens, adapters, analyses, visualizers
from mlxray.analyses.steering import SteeringVector
from mlxray.errors import InputError, LoadError, MlxrayError, SaveError
from mlxray.storage.files import check_file, check_writable, read_json, replace_files, write_text
from mlxray.visualizers.drawing.figure import picture


def table(size: int) -> TableResult:
    return TableResult({"layer": list(range(size)), "entropy": [0.5 * i for i in range(size)]})


def steering(size: int) -> SteeringVector:
    return SteeringVector(
        {"layers.0.resid_post": mx.ones((16 * size,))},
        norms={"layers.0.resid_post": 1.0},
        method="mean_difference",
        position="last",
        model="a model",
        n_layers=2,
        positive=("a",),
        negative=("b",),
        version="1",
    )


def figure(size: int) -> Any:
    made = picture(2, 2)
    made.subplots().plot(range(size))
    return made


#: Name of the file → what saves something of that size there.
SAVES: dict[str, Callable[[int, Path], Any]] = {
    "t.json": lambda n, path: table(n).save(path),
    "t.md": lambda n, path: table(n).save(path),
    "t.html": lambda n, path: table(n).save(path),
    "t.png": lambda n, path: table(n).save(path),
    "t.svg": lambda n, path: table(n).save(path),
    "figure.png": lambda n, path: figure(n).savefig(path),
    "lens.npz": lambda n, path: TunedLens(2, 8 * n).save(path),
    "v.safetensors": lambda n, path: steering(n).save(path),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """Every write past `most` bytes of a file fails, in libraries of C too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", SAVES)
def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    SAVES[name](1, tmp_path / name)
    before = contents(tmp_path)
    with small_files(64), pytest.raises(SaveError, match="cannot write") as error:
        SAVES[name](9, tmp_path / name)
    assert name in str(error.value)
    assert error.value.__cause__ is not None
    assert contents(tmp_path) == before
    SAVES[name](9, tmp_path / name)
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path) != before


@pytest.mark.parametrize("where", ["os.open", "os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("name", ["t.json", "lens.npz", "v.safetensors", "figure.png"])
def test_a_full_disk_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, where: str
) -> None:
    SAVES[name](1, tmp_path / name)
    before = contents(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(where, no_space)
        with pytest.raises(SaveError, match="No space left on device") as error:
            SAVES[name](9, tmp_path / name)
    assert isinstance(error.value, OSError)
    assert isinstance(error.value.__cause__, OSError)
    assert contents(tmp_path) == before


def test_the_second_of_two_files_fails(tmp_path: Path) -> None:
    """The lens' weights fit on the disk and its facts do not: neither is replaced."""
    TunedLens(2, 2).save(tmp_path / "lens")
    before = contents(tmp_path)
    lens = TunedLens(2, 2, losses=[0.5] * 1000)
    with small_files(4000), pytest.raises(SaveError, match=r"lens\.npz.*lens\.json"):
        lens.save(tmp_path / "lens")
    assert contents(tmp_path) == before


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import mlxray
    from mlxray import TableResult, TunedLens

    kind, path, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
    moved, move = 0, Path.replace

    def replace(self, target):
        global moved
        if moved == at:
            os.kill(os.getpid(), signal.SIGKILL)
        moved += 1
        return move(self, target)

    Path.replace = replace
    if kind == "lens":
        lens = TunedLens(2, 4, losses=[1.0])
        lens.translators[0].bias = lens.translators[0].bias + 1
        lens.save(path)
    else:
        TableResult({"new": [1]}).save(path)
"""


def kill_at(kind: str, path: Path, move: int) -> None:
    arguments = [kind, str(path), str(move)]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), *arguments], check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL


def test_a_save_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    path = table(1).save(tmp_path / "t.json")
    before = path.read_bytes()
    kill_at("table", path, 0)
    assert path.read_bytes() == before


def test_a_lens_killed_between_its_files_is_refused(tmp_path: Path) -> None:
    path = TunedLens(2, 4, losses=[2.0]).save(tmp_path / "lens")
    kill_at("lens", path, 0)
    assert TunedLens.load(path).losses == [2.0]
    kill_at("lens", path, 1)
    with pytest.raises(LoadError, match="of different saves"):
        TunedLens.load(path)
    TunedLens(2, 4, losses=[3.0]).save(path)
    assert TunedLens.load(path).losses == [3.0]


def test_a_lens_from_before_fingerprints_loads(tmp_path: Path) -> None:
    path = TunedLens(2, 4, losses=[2.0]).save(tmp_path / "lens")
    facts = json.loads(path.with_suffix(".json").read_text())
    del facts["weights"]
    path.with_suffix(".json").write_text(json.dumps(facts))
    assert TunedLens.load(path).losses == [2.0]


#: Calls that write a file by its name, and the files of the package that may make them.
WRITING = {"write_text", "write_bytes", "save_safetensors", "savez", "save_gguf", "ZipFile"}
WRITERS = {"files.py", "npz.py", "torch_file.py", "torch_writing.py", "tuned_lens_result.py"}


def test_nothing_else_writes_files() -> None:
    """Every save of the package goes through `mlxray.storage.files`, whose functions are called."""
    rooms = [Path(package.__path__[0]) for package in (mlxray, adapters, analyses, visualizers)]
    seen, found = 0, []
    for path in (p for room in rooms for p in room.rglob("*.py") if p.name not in WRITERS):
        seen += 1
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
            opens = node.func.attr == "open" and {"w", "wb", "a", "x"} & set(map(str, modes))
            if node.func.attr in WRITING or opens:
                found.append(f"{path.name}:{node.lineno}: {node.func.attr}")
    assert seen > 200
    assert found == []


# What is kept of the file that is replaced


def test_links_and_permissions_stay(tmp_path: Path) -> None:
    path = table(1).save(tmp_path / "t.json")
    path.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    table(2).save(link)
    assert link.is_symlink()
    assert json.loads(path.read_text())["data"]["columns"]["layer"] == [0, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    before = os.umask(0o027)
    try:
        fresh = table(1).save(tmp_path / "fresh.json")
    finally:
        os.umask(before)
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o640


def test_names_as_long_as_names_can_be(tmp_path: Path) -> None:
    for ending in ("json", "png"):
        path = tmp_path / f"{'x' * (254 - len(ending))}.{ending}"
        assert table(1).save(path).stat().st_size > 0


def test_endings_of_capitals_and_none(tmp_path: Path) -> None:
    assert table(1).save(tmp_path / "T.PNG").read_bytes().startswith(b"\x89PNG")
    figure(3).savefig(tmp_path / "plain")
    assert (tmp_path / "plain.png").read_bytes().startswith(b"\x89PNG")
    figure(3).savefig(tmp_path / "other", format="svg")
    assert (tmp_path / "other").read_bytes().startswith(b"<?xml")
    stream = io.BytesIO()
    figure(3).savefig(stream)
    assert stream.getvalue().startswith(b"\x89PNG")


def test_an_exception_of_the_block_goes_through(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("old")

    def stopped() -> None:
        with replace_files(path) as (part,):
            part.write_text("half of the")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert contents(tmp_path) == {"t.txt": b"old"}


def test_half_characters_are_written_as_escapes(tmp_path: Path) -> None:
    result = TableResult({"token": ["a \ud83d b"], "n": [1]})
    for ending in ("md", "html", "json"):
        assert "ud83d" in result.save(tmp_path / f"t.{ending}").read_text("utf-8")


@pytest.mark.parametrize("name", ["t.json", "lens.npz", "v.safetensors", "figure.png"])
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    ending = name.partition(".")[2]
    (tmp_path / f"folder.{ending}").mkdir()
    os.mkfifo(tmp_path / f"pipe.{ending}")
    (tmp_path / f"loop.{ending}").symlink_to(tmp_path / f"loop.{ending}")
    (tmp_path / "file").write_text("x")
    for place, said in {
        f"missing/t.{ending}": "there is no folder",
        f"file/t.{ending}": "there is no folder",
        f"folder.{ending}": "it is a folder: name a file in it",
        f"pipe.{ending}": "it is a pipe",
        f"loop.{ending}": "leads back to itself",
        f"{'x' * 300}.{ending}": "File name too long",
    }.items():
        with pytest.raises(SaveError, match=said):
            SAVES[name](1, tmp_path / place)
    assert isinstance(error_of(check_writable, tmp_path / "missing" / "x"), SaveError)


def error_of(function: Callable[..., Any], *arguments: Any) -> MlxrayError:
    with pytest.raises(MlxrayError) as error:
        function(*arguments)
    return error.value


def test_checking_writes_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.json")
    write_text(tmp_path / "old.json", "old")
    check_writable(tmp_path / "old.json")
    assert contents(tmp_path) == {"old.json": b"old"}


# Reading


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Things that are no files: name → path, what is said of it."""
    paths = {name: tmp_path / name for name in ("missing", "folder", "pipe", "dangling", "loop")}
    paths["folder"].mkdir()
    os.mkfifo(paths["pipe"])
    paths["dangling"].symlink_to(tmp_path / "nowhere")
    paths["loop"].symlink_to(paths["loop"])
    said = ["there is no file", "it is a folder", "it is a pipe", "a link to .*nowhere", "itself"]
    found = dict(zip(paths, zip(paths.values(), said, strict=True), strict=True))
    return {**found, "device": (Path("/dev/zero"), "a device"), "nul": (Path("a\0b"), "null")}


def test_what_is_no_file_is_named_and_never_opened(odd: dict[str, tuple[Path, str]]) -> None:
    for path, said in odd.values():
        with pytest.raises(LoadError, match=said):
            check_file(path)
        with pytest.raises(InputError, match=said):
            check_file(path, InputError)
        with pytest.raises(LoadError, match=said):
            read_json(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 200_000, b"9" * 10_000])
def test_json_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(LoadError, match="cannot be read") as error:
        read_json(path)
    assert len(str(error.value)) < 500


def test_large_json_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1, 2, 3]")
    assert read_json(path, 9) == [1, 2, 3]
    with pytest.raises(LoadError, match="9 bytes; at most 8"):
        read_json(path, 8)
