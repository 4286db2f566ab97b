"""Where the recorded results of long runs lie: in the repository, beside the lessons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def recorded(places: Sequence[Path] | None = None) -> Path:
    """Find the folder ``results`` that comes with the repository.

    Parameters
    ----------
    places
        Folders that may hold it: unless given, the checkout that this package is imported from, then the
        current folder and those above it.

    Raises
    ------
    FileNotFoundError
        None of them does.
    """
    if places is None:
        here = Path.cwd()
        places = [Path(__file__).resolve().parents[2], here, *here.parents]
    for place in places:
        if (place / "results" / "digits.json").is_file():
            return place / "results"
    raise FileNotFoundError(
        f"no results/digits.json in {' or '.join(map(str, dict.fromkeys(places)))}: recorded results come "
        "with the repository; `layerlab reproduce --digits` makes them anew"
    )
