"""The two folders: where a user put files by hand, and where downloaded files are kept."""

from __future__ import annotations

import os
from pathlib import Path

from layerlab.data.errors import DataError

DATA = "LAYERLAB_DATA"
CACHE = "LAYERLAB_CACHE"


def data_folder() -> Path | None:
    """The folder that ``LAYERLAB_DATA`` names; None if it is not set.

    Raises
    ------
    DataError
        What it names is no folder.
    """
    told = os.environ.get(DATA)
    if not told:
        return None
    folder = Path(told).expanduser()
    if not folder.is_dir():
        raise DataError(f"{DATA}={told} is no folder: set it to the folder with the data files, or unset it")
    return folder


def given(name: str) -> Path | None:
    """The file of that name in the folder that ``LAYERLAB_DATA`` names; None if it is not there."""
    folder = data_folder()
    return folder / name if folder is not None and (folder / name).is_file() else None


def cache_folder() -> Path:
    """Where downloads are kept: ``LAYERLAB_CACHE``, else the system's place for caches. It may not exist."""
    if told := os.environ.get(CACHE):
        return Path(told).expanduser()
    import pooch

    return Path(pooch.os_cache("layerlab"))


def way_out(name: str) -> str:
    """What to do by hand when a file cannot be downloaded."""
    if folder := data_folder():
        return f"Get {name} in another way and put it into {folder}, which {DATA} names: it is not there."
    return f"Get {name} in another way, put it into a folder and set {DATA} to that folder."
