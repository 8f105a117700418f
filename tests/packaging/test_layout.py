"""The lists in pyproject.toml, compared with the folders on disk."""

import ast
import importlib.util
import tomllib
from pathlib import Path

import pytest

import mlxray

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
ROOMS = {package: ROOT / folder for package, folder in SETUPTOOLS["package-dir"].items()}


def modules() -> dict[str, Path]:
    """Module name → file, for every Python file in the rooms."""
    found = {}
    for package, room in ROOMS.items():
        for file in sorted(room.rglob("*.py")):
            parts = file.relative_to(room).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            found[".".join((package, *parts))] = file
    return found


def test_packages_are_the_folders_with_python_files():
    on_disk = {
        ".".join((package, *file.parent.relative_to(room).parts))
        for package, room in ROOMS.items()
        for file in room.rglob("*.py")
    }
    assert sorted(on_disk) == sorted(SETUPTOOLS["packages"])


def test_every_package_has_an_init_file():
    found = modules()
    missing = [
        package
        for package in SETUPTOOLS["packages"]
        if found.get(package, Path()).name != "__init__.py"
    ]
    assert missing == []


def test_version():
    assert mlxray.__version__ == PYPROJECT["project"]["version"]


def test_mypy_sees_every_room():
    assert (ROOT / ".mypy/kernel/mlxray").resolve() == ROOMS["mlxray"]
    for package, room in ROOMS.items():
        if package != "mlxray":
            link = ROOT / ".mypy/rooms" / package.replace(".", "/")
            assert link.resolve() == room
    assert sorted(PYPROJECT["tool"]["mypy"]["packages"]) == sorted(ROOMS)


def test_entry_points_name_modules_on_disk():
    found = modules()
    for name, target in PYPROJECT["project"]["entry-points"]["mlxray"].items():
        assert target.partition(":")[0] in found, f"{name} = {target!r}: no such file"


def test_built_in_plugins_all_have_an_entry_point():
    """A file that holds a hook implementation and no line is a capability nobody sees."""
    listed = {
        target.partition(":")[0]
        for target in PYPROJECT["project"]["entry-points"]["mlxray"].values()
    }
    unlisted = [
        module
        for module, file in modules().items()
        if not module.startswith("mlxray.testing")
        and _implements_a_hook(ast.parse(file.read_text(encoding="utf-8")))
        and module not in listed
    ]
    assert unlisted == []


def _implements_a_hook(tree: ast.Module) -> bool:
    decorators = (
        decorator.func if isinstance(decorator, ast.Call) else decorator
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
    )
    return any(ast.unparse(decorator).split(".")[-1] == "hookimpl" for decorator in decorators)


def test_no_module_imports_a_room_by_its_folder():
    folders = {room.name for room in ROOMS.values()}
    for module, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            bad = [name for name in names if name.split(".")[0] in folders]
            assert not bad, f"{module} line {node.lineno}: import mlxray instead of {bad[0]}"


def test_the_kernel_imports_no_other_room():
    others = tuple(package for package in ROOMS if package != "mlxray")
    for module, file in modules().items():
        if module.startswith(others):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [_absolute(module, file, node)]
            else:
                continue
            bad = [name for name in names if name.startswith(others)]
            assert not bad, f"{module} line {node.lineno}: the kernel imports {bad[0]}"


def _absolute(module: str, file: Path, node: ast.ImportFrom) -> str:
    name = "." * node.level + (node.module or "")
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return importlib.util.resolve_name(name, package) if node.level else name


@pytest.mark.parametrize(
    ("word", "parts"),
    [("pytest", ('".[cpu,test]"', "&& pytest")), ("lens", ('".[cpu]"', "&& mlxray lens"))],
)
def test_readme_shows_the_commands_that_ci_runs(word: str, parts: tuple[str, ...]):
    script = ROOT / ".ci/readme_command.py"
    spec = importlib.util.spec_from_file_location("readme_command", script)
    assert spec is not None
    assert spec.loader is not None
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    command = readme.command(word, (ROOT / "README.md").read_text(encoding="utf-8"))
    assert command.startswith("pip install")
    for part in parts:
        assert part in command
