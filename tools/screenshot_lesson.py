"""Run a notebook in a real JupyterLab and take a picture of all of it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "browser"))
from lab import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the picture; returns 1 if the notebook shows an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("picture", type=Path, help="where to write the PNG")
    parser.add_argument("--dark", action="store_true", help="in JupyterLab's dark theme")
    parser.add_argument("--width", type=int, default=1280, help="of the window, in pixels")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        # A copy, for a run changes the notebook; of its whole folder, for it may read files there.
        folder = shutil.copytree(chosen.notebook.resolve().parent, Path(scratch, "notebooks"))
        with (
            serve(folder, Path(scratch, "private")) as lab,
            lab.open_lesson(chosen.notebook.name, width=chosen.width) as lesson,
        ):
            lesson.set_dark(chosen.dark)
            lesson.run_all()
            lesson.screenshot(chosen.picture)
            errors = [*lesson.errors(), *lesson.console_errors]
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
