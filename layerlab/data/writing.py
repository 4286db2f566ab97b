"""Writing a file so that nobody ever sees half of it, also when several processes want to write it."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside `path`; it becomes `path` in one move if all went well.

    Whatever is raised inside, the temporary file is gone afterwards and `path` is as it was.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def alone(path: Path, *also: Path) -> Iterator[None]:
    """Wait until no other process is writing `path`, and keep the others waiting.

    The lock is the system's own, so it ends with its process, however that dies. What a killed process left
    half-written, of `path` or of the files beside it that are written with it (`also`), is swept away: who
    has the lock knows that nobody is writing. The empty lock file stays.

    Raises
    ------
    OSError
        The folder cannot be written, or knows no locks.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire()
    except NotImplementedError as error:
        raise OSError(errno.ENOTSUP, "this file system knows no locks", str(path.parent)) from error
    try:
        ours = "|".join(re.escape(one.name) for one in (path, *also))
        for left in path.parent.glob(".*.part"):
            if re.fullmatch(rf"\.({ours})\.[0-9a-f]{{32}}\.part", left.name):
                left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
