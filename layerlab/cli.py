"""The command ``layerlab``: open lessons, train a document's settings, audit a model, examine the set-up."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path
from urllib.parse import quote

from layerlab import doctor
from layerlab.cli_audit import add_audit, run_audit
from layerlab.cli_reproduce import add_reproduce, run_reproduce

FIRST_LESSON = "00_start_here.ipynb"


def find_lessons(places: Sequence[Path] | None = None) -> Path:
    """Find the folder that holds the lessons.

    Parameters
    ----------
    places
        Folders that may hold ``lessons/``: unless given, the checkout that this package is imported
        from, then the current folder and those above it.

    Raises
    ------
    FileNotFoundError
        If none of them does. Lessons come with the repository, not with the installed package.
    """
    if places is None:
        here = Path.cwd()
        places = [Path(__file__).resolve().parent.parent, here, *here.parents]
    for place in places:
        if (place / "lessons" / FIRST_LESSON).is_file():
            return place / "lessons"
    raise FileNotFoundError(
        f"no lessons/{FIRST_LESSON} in {' or '.join(map(str, dict.fromkeys(places)))}: the lessons come with "
        "the repository, so run `layerlab lab` in a checkout of it"
    )


def find_lesson(name: str, lessons: Path) -> Path:
    """Find the lesson of that name, or the only one that begins with it: ``03``.

    Raises
    ------
    FileNotFoundError
        If there is none; the message lists the lessons with near names, or else all.
    """
    for lesson in (lessons / name, lessons / f"{name}.ipynb"):
        if lesson.is_file():
            return lesson
    all_of_them = sorted(path.name for path in lessons.glob("*.ipynb"))
    begin = [one for one in all_of_them if name and one.startswith(name)]
    if len(begin) == 1:
        return lessons / begin[0]
    near = difflib.get_close_matches(name, all_of_them, n=3, cutoff=0.4) or all_of_them
    raise FileNotFoundError(f"no notebook {name!r} here or in {lessons}; there is {', '.join(near)}")


def lab_arguments(name: str, *, root: bool) -> list[str]:
    """Build the arguments of ``jupyter lab`` that open a notebook: a path, or the name of a lesson.

    Raises
    ------
    FileNotFoundError
        If the notebook, the lessons or JupyterLab itself is missing.
    """
    path = Path(name)
    notebook = path if path.is_file() else find_lesson(name, find_lessons())
    if util.find_spec("jupyterlab") is None:
        raise FileNotFoundError(
            f"JupyterLab is not installed for {sys.executable}; cure: "
            f"{sys.executable} -m pip install 'layerlab[lab]'"
        )
    notebook = notebook.resolve()
    # Named twice: for the browser that opens by itself, and for the address that is printed.
    address = f"--LabApp.default_url=/lab/tree/{quote(notebook.name)}"
    return [*(["--allow-root"] if root else []), address, str(notebook)]


def open_lab(name: str) -> int:
    """Open a notebook in JupyterLab; returns the exit status when the server has been stopped."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0  # as root, JupyterLab refuses unless told
    try:
        arguments = lab_arguments(name, root=is_root)
    except FileNotFoundError as error:
        print(f"layerlab lab: {error}", file=sys.stderr)
        return 1
    from jupyterlab.labapp import LabApp

    # In this process: lessons surely run in this environment, and Ctrl-C is the server's to answer.
    LabApp.launch_instance(arguments)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        prog="layerlab", description="See which tensors moved in an optimizer step, which stayed, and why."
    )
    parser.add_argument("--version", action="version", version=f"layerlab {metadata.version('layerlab')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    lab = commands.add_parser("lab", help="open the lessons in JupyterLab")
    lab.add_argument(
        "notebook", nargs="?", default=FIRST_LESSON, help="a lesson or any notebook (default: %(default)s)"
    )
    add_reproduce(commands)
    add_audit(commands)
    commands.add_parser("doctor", help="say what is broken in this installation, and the cure")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    chosen = build_parser().parse_args(arguments)
    if chosen.command == "lab":
        return open_lab(chosen.notebook)
    if chosen.command == "reproduce":
        return run_reproduce(chosen)
    if chosen.command == "audit":
        return run_audit(chosen)
    return doctor.report(doctor.examine())


if __name__ == "__main__":
    sys.exit(main())
