"""Downloading one file, whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layerlab.data.causes import in_words
from layerlab.data.errors import DataError
from layerlab.data.places import CACHE, cache_folder, way_out
from layerlab.data.progress import bar
from layerlab.data.writing import alone, whole

PATIENCE = (5.0, 15.0)
"""How many seconds to wait for a connection, and then for each next piece."""

RECORDED = "checksum recorded at first download, not verified against a publisher"
"""What to say of a file that was fetched without a known checksum."""

_PIECE = 1 << 16
_SUM = re.compile(r"[0-9a-f]{64}")


def fetch(
    url: str,
    name: str,
    sha256: str | None = None,
    folder: str | Path | None = None,
    *,
    progress: bool | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Return a file from the cache folder, downloaded if it is not there yet.

    It is downloaded to a temporary file and moved into place when it is whole and right, so the file is
    either all there or not there. A download that was cut off starts anew at the next call. If two processes
    want the same file, one downloads it and the other waits.

    Parameters
    ----------
    url
        Where it is, over http or https.
    name
        Its name in the folder.
    sha256
        The checksum that its publisher gives. Without one, the sum of the first complete download is recorded
        beside the file (``<name>.sha256``), not verified against a publisher, and checked from then on. A
        file in the folder that does not have the known or recorded sum, or has no record, is fetched again.
    folder
        Where to keep it: by default the folder that ``LAYERLAB_CACHE`` names, else the system's cache.
    progress
        Whether to show a bar; None shows one only in a terminal.
    check
        Called with the downloaded file before it is accepted; a ValueError or DataError that it raises
        rejects the file. Without a publisher's checksum it is what tells data from a log-in page.

    Raises
    ------
    DataError
        The file could not be had: not found, no network, cut off, wrong bytes, no space.
    ValueError
        `name` is no plain file name, or `sha256` no SHA-256.
    """
    if name in {"", ".", ".."} or re.search(r"[/\\:\0]", name):
        raise ValueError(f"name must be a plain file name, without a folder: {name!r}")
    if sha256 is not None and not _SUM.fullmatch(sha256 := sha256.lower()):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, not {sha256!r}")
    target = (cache_folder() if folder is None else Path(folder)) / name
    if _is_right(target, sha256):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target, _record(target)):
            if not _is_right(target, sha256):  # another process may have fetched it while this one waited
                _download(url, target, sha256, progress, check)
    except (OSError, ValueError) as error:  # all of requests' errors are OSErrors; an odd URL is a ValueError
        raise _failure(url, target, in_words(error)) from error
    return target


def _failure(url: str, target: Path, cause: str) -> DataError:
    return DataError(
        f"Could not fetch {target.name} from {url} into {target.parent}: {cause}. {way_out(target.name)} "
        f"{CACHE} names another folder for downloads."
    )


def _is_right(target: Path, sha256: str | None) -> bool:
    known = sha256 or _recorded(target)
    return known is not None and target.is_file() and _sum(target) == known


def _download(
    url: str,
    target: Path,
    sha256: str | None,
    progress: bool | None,
    check: Callable[[Path], None] | None,
) -> None:
    with whole(target) as part:
        _receive(url, part, target.name, progress)
        came = _sum(part)
        recorded = _recorded(target)
        if sha256 is not None and came != sha256:
            raise _failure(url, target, f"wrong bytes came: their SHA-256 is {came}, not the known {sha256}")
        if sha256 is None and recorded is not None and came != recorded:
            cause = (
                f"wrong bytes came: their SHA-256 is {came}, not the {recorded} of the first download; if "
                f"the file was changed on purpose, delete {_record(target)}"
            )
            raise _failure(url, target, cause)
        if check is not None:
            try:
                check(part)
            except (ValueError, DataError) as error:
                raise _failure(url, target, f"wrong bytes came: {error}") from error
        # The record comes first: a file without one counts as not there.
        if sha256 is None and recorded is None:
            with whole(_record(target)) as record:
                record.write_text(f"{came}  {target.name}\n", encoding="utf-8")


def _receive(url: str, part: Path, name: str, progress: bool | None) -> None:
    import pooch

    responses: list[Any] = []
    with bar(1, name, unit="B", progress=progress) as shown:
        receive = pooch.HTTPDownloader(
            progressbar=shown,
            chunk_size=_PIECE,
            timeout=PATIENCE,
            # Not compressed on the way, so that the announced length is that of the file.
            headers={"Accept-Encoding": "identity"},
            hooks={"response": lambda response, **_: responses.append(response)},
        )
        try:
            receive(url, str(part), None)
        finally:
            for response in responses:  # pooch leaves the connection open when it fails
                response.close()
    announced = int(responses[-1].headers.get("Content-Length", 0))
    came = part.stat().st_size
    if came < announced:  # urllib3 1 takes this for the end of the file
        raise ConnectionResetError(f"cut off after {came} of {announced} bytes")


def _sum(path: Path) -> str:
    import pooch

    return str(pooch.file_hash(str(path)))


def _record(target: Path) -> Path:
    """Where the sum of the first download is kept, in the format of ``sha256sum``."""
    return target.with_name(f"{target.name}.sha256")


def _recorded(target: Path) -> str | None:
    try:
        found = _SUM.match(_record(target).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return found.group() if found else None
