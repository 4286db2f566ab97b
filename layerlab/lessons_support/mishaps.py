"""An exception in a learner's code, in words: what it said, and at which line of theirs."""

from __future__ import annotations

import inspect
import linecache
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layerlab.printable import printable
from layerlab.show.words import cut

LONGEST_MESSAGE = 300


def said(error: Exception) -> str:
    """An exception in one line."""
    message = cut(printable(" ".join(str(error).split())), LONGEST_MESSAGE)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def where(error: Exception, function: Callable[..., Any]) -> str:
    """The innermost line of the function's own cell (or file) that an exception passed through.

    If it passed through none, because the function is a module, say: of any code that is not installed.
    """
    frames = [(f, n, f.f_code.co_filename) for f, n in traceback.walk_tb(error.__traceback__)]
    home = getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", None)
    own = [frame for frame in frames if frame[2] == home]
    own = own or [frame for frame in frames if not _is_installed(frame[2])]
    if not own:
        return ""
    frame, number, file = own[-1]
    code = printable(linecache.getline(file, number, frame.f_globals).strip())
    return f", at line {number}" + (f": {code}" if code else "")


def _is_installed(file: str) -> bool:
    """Whether a file is Python's, a package's or this package's: nobody's own code."""
    place = Path(file)
    homes = (sysconfig.get_path("stdlib"), Path(__file__).parents[1])
    return (
        file.startswith("<frozen")
        or not {"site-packages", "dist-packages"}.isdisjoint(place.parts)
        or any(place.is_relative_to(home) for home in homes)
    )
