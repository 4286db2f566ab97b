"""A tree of picture files, read the same way from a zip archive and from a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile, ZipFile

from layerlab.data.errors import DataError

SPLITS = ("train", "val")

_Place = TypeVar("_Place")


@dataclass(frozen=True)
class ImageFiles:
    """The files of an open archive or folder."""

    names: tuple[str, ...]
    """``train/ants/0013035.jpg`` and so on, sorted; the same from an archive and a folder."""
    _read: Callable[[str], bytes]

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises
        ------
        DataError
            They cannot be read.
        """
        try:
            return self._read(name)
        except Exception as error:  # zipfile alone raises six kinds, and zlib its own
            raise DataError(f"{name} cannot be read ({error}): get a new copy of the data") from error


@contextmanager
def opened(source: Path, top: str) -> Iterator[ImageFiles]:
    """Open a zip archive or a folder; nothing is extracted.

    Parameters
    ----------
    source
        The archive or folder.
    top
        The name of the archive's top folder, which is left out of the names. It may be missing.

    Raises
    ------
    DataError
        `source` is no zip archive, or a damaged one.
    ValueError
        A name in the archive leads out of it.
    """
    if source.is_dir():
        found = (path for path in source.rglob("*") if path.is_file())
        yield _of({path.relative_to(source).as_posix(): path for path in found}, Path.read_bytes)
        return
    try:
        archive = ZipFile(source)
    except (BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise DataError(f"{source.name} is no complete zip archive ({error}): get a new copy") from error
    with archive:
        members: dict[str, str] = {}
        for member in archive.namelist():
            _stay_inside(member, source)
            if not member.endswith("/"):
                members[member.removeprefix(f"{top}/")] = member
        yield _of(members, archive.read)


def _of(places: dict[str, _Place], read: Callable[[_Place], bytes]) -> ImageFiles:
    wanted = tuple(sorted(name for name in places if _is_image_file(name)))
    return ImageFiles(wanted, lambda name: read(places[name]))


def _is_image_file(name: str) -> bool:
    """Whether it is ``train/class/file`` or ``val/class/file`` and meant as a picture.

    The original archive has an ``imageNotFound.gif`` among the ants; systems add hidden files and folders.
    """
    parts = name.split("/")
    return (
        len(parts) == 3
        and parts[0] in SPLITS
        and parts[-1] != "imageNotFound.gif"
        and not any(part.startswith(".") for part in parts)
    )


def _stay_inside(member: str, source: Path) -> None:
    parts = re.split(r"[/\\]", member)
    if ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", member):
        raise ValueError(f"{source.name} has a file named {member!r}, which leads out of it: do not use it")
