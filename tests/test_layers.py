"""The layer table in docs/architecture.md is law: imports point down, third-party packages stay in their rooms."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "chat_api"
TABLE_ROW = re.compile(r"^\| (\d) \| `(\w+)` \| .+? \| (.*?) ?\|$", re.MULTILINE)
ROWS = TABLE_ROW.findall((ROOT / "docs" / "architecture.md").read_text())
MODULES = [name for _, name, _ in ROWS]
LAYER = {name: int(layer) for layer, name, _ in ROWS}
THIRD_PARTY = {name: set(packages.replace(" ", "").split(",")) - {""} for _, name, packages in ROWS}


def room(path: Path) -> str:
    """The room that a file belongs to: its module, or the package it is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, wherever in it; `from chat_api import x` counts as `chat_api.x`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively; imports are absolute here"
            module = str(node.module)
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "chat_api" else {module}
    return names


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_every_module_has_a_room() -> None:
    """A new module is given a layer in the table, and the table names no module that is gone."""
    assert {room(path) for path in FILES} == set(MODULES)
    assert sorted(MODULES, key=LAYER.__getitem__) == MODULES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """A module imports lower layers, or modules of its own layer that stand above it in the table."""
    own = room(path)
    for name in imported(path):
        package, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if package == "chat_api" and target not in (own, "__version__"):
            assert LAYER[target] < LAYER[own] or (
                LAYER[target] == LAYER[own] and MODULES.index(target) < MODULES.index(own)
            ), f"{own} imports {target}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_party_packages_stay_in_their_rooms(path: Path) -> None:
    """A module imports only the third-party packages that the table gives it."""
    packages = {name.partition(".")[0] for name in imported(path)} - {"chat_api"} - sys.stdlib_module_names

    assert packages <= THIRD_PARTY[room(path)]


@pytest.mark.parametrize("name", MODULES)
def test_table_gives_no_package_that_is_not_used(name: str) -> None:
    """What the table says of third-party packages is what the code imports."""
    used = {package.partition(".")[0] for path in FILES if room(path) == name for package in imported(path)}

    assert used >= THIRD_PARTY[name]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_stay_readable(path: Path) -> None:
    """No module passes 300 lines, no function 40, and nothing is a `global`."""
    source = path.read_text()
    assert source.count("\n") <= 300
    for node in ast.walk(ast.parse(source)):
        assert not isinstance(node, ast.Global)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 40, f"{node.name} is too long"
