"""The command ``layerlab audit``: look over what a function of yours builds, before it trains."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerlab.auditing import Audit

ABOUT = """\
Call a function that builds a model, its optimizer (or several) and perhaps a scheduler and a loss, and say
what is wrong with them. It takes no arguments, and returns them as a tuple, or as a dict with the keys model,
optimizer, scheduler, loss and batch (an example input; optional like all but the model).

exit status: 0 nothing found, 1 an error or a warning (with --strict, a note too), 2 it could not be run"""

KEYS = ("model", "optimizer", "optimizers", "scheduler", "schedulers", "loss", "batch")
"""What a dict may hold."""


class CannotRun(Exception):
    """The function could not be found or called, or what it returned is no set-up."""


def add_audit(commands: Any) -> None:
    """Add the command's line to the parser of ``layerlab``."""
    parser = commands.add_parser(
        "audit",
        help="say what is wrong with a model, its optimizer and scheduler, before training",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target", metavar="MODULE:FUNCTION", help="such as my_project.train:make or path/to/train.py:make"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--strict", action="store_true", help="exit with 1 for notes too")


def run_audit(chosen: argparse.Namespace) -> int:
    """Audit what the function returns; returns the exit status."""
    try:
        # What it prints goes where it does not spoil the JSON.
        with contextlib.redirect_stdout(sys.stderr):
            found = _audited(_built(chosen.target))
    except CannotRun as error:
        print(f"layerlab audit: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found.rows(), ensure_ascii=False, indent=1) if chosen.json else found)
    return int(any(chosen.strict or finding.level != "note" for finding in found))


def _built(target: str) -> Any:
    """Import the module and call the function."""
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise CannotRun(f"{target!r} is not MODULE:FUNCTION, such as train:make or path/to/train.py:make")
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else _from_path(place)
    except CannotRun:
        raise
    except (Exception, SystemExit) as error:
        raise CannotRun(f"importing {place} raised {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        there = [word for word, thing in vars(module).items() if callable(thing) and word[:1] != "_"]
        hint = f"; it has: {', '.join(there)}" if there else ""
        raise CannotRun(f"{place} has no function {name!r}{hint}")
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise CannotRun(f"{target}() raised {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise CannotRun(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CannotRun(f"{path} is not a Python file")
    sys.path.insert(0, str(path.resolve().parent))  # where its own imports look first, as if it were run
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _from_path(name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _audited(made: Any) -> Audit:
    """Sort what the function returned, and audit it."""
    from torch import nn

    from layerlab.auditing import audit

    options: dict[str, Any] = {}
    if isinstance(made, Mapping):
        wrong = [key for key in made if key not in KEYS]
        if wrong or "model" not in made:
            missing = f"an unknown key {wrong[0]!r}" if wrong else "no key 'model'"
            raise CannotRun(f"the function's dict has {missing}; its keys are {', '.join(KEYS)}")
        model = made["model"]
        parts = [part for key in KEYS[1:5] for part in _several(made.get(key))]
        options = {key: made[key] for key in ("loss", "batch") if made.get(key) is not None}
    else:
        model, *rest = made if isinstance(made, (tuple, list)) and made else [made]
        parts = [part for one in rest for part in _several(one)]
        losses = [part for part in parts if isinstance(part, nn.Module) or _is_function(part)]
        parts = [part for part in parts if not any(part is loss for loss in losses)]
        if len(losses) > 1:
            raise CannotRun("the function's tuple holds more than a model and a loss: return a dict")
        options = {"loss": losses[0]} if losses else {}
    try:
        return audit(model, *parts, **options)
    except (TypeError, ValueError) as error:
        raise CannotRun(f"what the function returned cannot be audited: {error}") from error


def _is_function(part: Any) -> bool:
    return callable(part) and not hasattr(part, "step")


def _several(part: Any) -> list[Any]:
    if part is None:
        return []
    return list(part) if isinstance(part, (tuple, list)) else [part]
