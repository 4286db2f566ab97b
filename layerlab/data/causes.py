"""Why a download failed, in words."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from http import HTTPStatus

_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}
# By name, because requests, urllib3 and the standard library each have their own.
_CUT = {
    "IncompleteRead",
    "ChunkedEncodingError",
    "ConnectionResetError",
    "RemoteDisconnected",
    "ProtocolError",
}
_CERTIFICATE = {"SSLError", "SSLCertVerificationError"}
_NO_WAY = {"ConnectionError", "ConnectionRefusedError", "NewConnectionError", "URLError"}


def in_words(error: BaseException) -> str:
    """Say what went wrong, for an error of requests, of urllib or of the system."""
    errors = list(_all_of(error))
    kinds = {type(one).__name__ for one in errors}
    for one in errors:
        if (status := _status(one)) is not None:
            return f"the server answered {_phrase(status)}"
    if any(isinstance(one, OSError) and one.errno in _FULL for one in errors):
        return "no space left on the disk"
    if any("Timeout" in kind for kind in kinds) or any(isinstance(one, TimeoutError) for one in errors):
        return "the server did not answer in time (is there a network?)"
    if kinds & _CERTIFICATE:
        return "the server's certificate could not be verified"
    if kinds & _CUT:
        return "the connection was cut off"
    if kinds & _NO_WAY or any(isinstance(one, socket.gaierror) for one in errors):
        return "no network, or the server cannot be reached"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return repr(error)


def _all_of(error: BaseException) -> Iterator[BaseException]:
    """Walk through the error and all it wraps: requests and urllib3 put the cause into their arguments."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]


def _status(error: BaseException) -> int | None:
    """The HTTP status that requests (``response.status_code``) or urllib (``code``) reports."""
    for status in (
        getattr(getattr(error, "response", None), "status_code", None),
        getattr(error, "code", None),
    ):
        if isinstance(status, int) and status >= 400:
            return status
    return None


def _phrase(status: int) -> str:
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:  # a status of the server's own
        return str(status)
