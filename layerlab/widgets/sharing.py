"""The state of some controls as a short text that can be copied, and read back by somebody else.

``optimizer=AdamW/SGD;zero_grad=zeros`` sets the optimizer to AdamW on the left and SGD on the right, and
zero_grad to zeros on both. A character that would be misread is written as ``%`` and its UTF-8 bytes in hex.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, unquote

_SEPARATORS = "%=;/"


def write_state(chosen: Mapping[str, Sequence[str]]) -> str:
    """Write the labels that are chosen for each setting, one for each side; once where all sides agree."""
    return ";".join(
        f"{_encode(name)}={'/'.join(map(_encode, labels if len(set(labels)) > 1 else labels[:1]))}"
        for name, labels in chosen.items()
    )


def read_state(state: str, known: Mapping[str, Iterable[str]], sides: int) -> dict[str, tuple[str, ...]]:
    """Read what `write_state` wrote: the labels of each setting that it names, one for each side.

    Parameters
    ----------
    state
        The text; white space around its parts does not matter.
    known
        The labels of every setting there is.
    sides
        How many labels a setting takes; a lone one is meant for all sides.

    Raises
    ------
    TypeError
        `state` is no str.
    ValueError
        For a text that names no setting, or one that does not exist or comes twice, or a label that does
        not exist, or too many; the message says what would be right.
    """
    if not isinstance(state, str):
        raise TypeError(f"a state is a str, such as {_example(known)!r}, not {type(state).__name__}")
    read: dict[str, tuple[str, ...]] = {}
    for part in filter(None, map(str.strip, state.split(";"))):
        coded, equals, values = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} is not setting=value, such as {_example(known)!r}")
        name = _decode(coded)
        if name not in known:
            raise ValueError(f"no setting {name!r}{_near(name, known)}")
        if name in read:
            raise ValueError(f"{name!r} is set twice: leave one out")
        labels = tuple(map(_decode, values.split("/")))
        if len(labels) > sides or 1 < len(labels) < sides:
            most = "takes one value" if sides == 1 else f"takes one value, or {sides} with / between them"
            raise ValueError(f"{part!r} has {len(labels)} values: {name!r} {most}")
        for label in labels:
            if label not in known[name]:
                raise ValueError(f"{name}={label!r}: there is no such value{_near(label, known[name])}")
        read[name] = labels if len(labels) == sides else labels * sides
    if not read:
        raise ValueError(f"this state is empty; one looks like {_example(known)!r}")
    return read


def _encode(label: str) -> str:
    """Write separators, what cannot be seen, and white space at the ends as %XX."""
    inside = range(len(label) - len(label.lstrip()), len(label.rstrip()))
    return "".join(
        c
        if at in inside and c.isprintable() and c not in _SEPARATORS
        else quote(c, "", "utf-8", "surrogatepass")
        for at, c in enumerate(label)
    )


def _decode(text: str) -> str:
    try:
        return unquote(text.strip(), "utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise ValueError(
            f"{text.strip()!r}: after a % stand two hex digits of UTF-8; % itself is %25"
        ) from None


def _example(known: Mapping[str, Iterable[str]]) -> str:
    return write_state({name: [next(iter(labels))] for name, labels in list(known.items())[:2]})


def _near(word: str, known: Iterable[str]) -> str:
    every = list(known)
    lower = {one.lower(): one for one in every}
    near = [lower[one] for one in difflib.get_close_matches(word.lower(), lower, n=3, cutoff=0.5)]
    return f"; near it: {_quoted(near)}" if near else f"; there are {_quoted(every)}"


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(map(repr, words))
