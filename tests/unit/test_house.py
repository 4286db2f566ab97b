"""The rules of the house: imports go one way, files stay short, none names the machine it was made on."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import layerlab

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "layerlab"

# From the ground up. A room imports only from rooms on the floors below its own.
FLOORS = [
    {"printable"},
    {"flags", "group_options", "modes", "names", "record", "remade", "wrappers"},
    {"bundles", "called", "compare", "keeping"},
    {"freezing", "replay", "show", "snapshot"},
    {"groups", "reasons", "rules"},
    {"alarms", "observe"},
    {"wiring"},
    {"ledger"},
    {"data"},
    {"training"},
    {"auditing", "unfreezing"},
    {"experiments"},
    {"lessons_support"},
    {"widgets"},
    {"doctor", "notebook"},
    {"cli_audit", "cli_reproduce"},
    {"cli"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 320

HEAVY = {"torchvision", "matplotlib", "ipywidgets", "anywidget", "IPython"}

# None of these patterns matches its own text here.
UNWANTED = {
    "a path of one machine": re.compile(r"/(w[o]rk|f[a]rm|r[o]ot)/"),
    "a package registry's address": re.compile(
        r"(registry|index)[-_a-z]* *[=:] *\"?https?://|https?://[^ \"]+\.(whl|tgz)"
        r"|pypi\.org|pythonhosted\.org|download\.pytorch\.org/whl|registry\.npmjs\.org|conda\.anaconda\.org"
    ),
}


def module_name(path):
    """`layerlab/show/text.py` is `layerlab.show.text`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source, name, is_package=False):
    """List the full names of all that a module imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = name if is_package else name.rpartition(".")[0]
            start = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def room(full_name):
    """`layerlab.show.text.width` stands in the room `show`."""
    return full_name.split(".")[1]


def wrong_ways(source, name, is_package=False):
    """List the imports that do not go down."""
    ours = [found for found in imports(source, name, is_package) if found.split(".")[0] == "layerlab"]
    return [
        found
        for found in ours
        if "." not in found
        or (room(found) != room(name) and FLOOR_OF.get(room(found), len(FLOORS)) >= FLOOR_OF[room(name)])
    ]


def read_imports(path):
    return path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py"


ROOMS = [path for path in MODULES if path != PACKAGE / "__init__.py"]


def test_every_room_has_its_floor():
    assert {room(module_name(path)) for path in ROOMS} <= FLOOR_OF.keys()


@pytest.mark.parametrize("path", ROOMS, ids=module_name)
def test_imports_go_down(path):
    assert wrong_ways(*read_imports(path)) == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "show").rglob("*.py")), ids=module_name)
def test_show_knows_the_record_and_nothing_of_torch(path):
    found = imports(*read_imports(path))
    assert {room(name) for name in found if name.startswith("layerlab.")} <= {"printable", "show", "record"}
    assert "torch" not in {name.split(".")[0] for name in found}


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("from layerlab.record import Step", []),
        ("def late():\n    from layerlab.ledger import watch", ["layerlab.ledger.watch"]),
        ("import layerlab", ["layerlab"]),
        ("from layerlab import freeze", ["layerlab.freeze"]),
        ("from .text import width", []),
        ("from ..ledger import watch", ["layerlab.ledger.watch"]),
        ("from layerlab.freezing import freeze", ["layerlab.freezing.freeze"]),
        ("import torch", []),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_noticed(source, wrong):
    assert wrong_ways(source, "layerlab.show.html") == wrong


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_fits_in_one_reading(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST


def test_the_package_alone_imports_nothing_heavy():
    code = "import sys, layerlab; layerlab.watch, layerlab.freeze; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" in done.stdout.split()
    assert HEAVY.isdisjoint(done.stdout.split())


def test_types_are_offered_to_users():
    assert (PACKAGE / "py.typed").is_file()


def test_the_version_is_said_once():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{layerlab.__version__}"\n' in text


def test_files_name_neither_a_machine_nor_a_registry():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode != 0:
        pytest.skip("not in a git checkout")
    found = []
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            text = content.decode("utf-8")
            found += [f"{name}: {what}" for what, pattern in UNWANTED.items() if pattern.search(text)]
    assert found == []
