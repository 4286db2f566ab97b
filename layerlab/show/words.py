"""Small helpers on words and numbers that every renderer shares."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from layerlab.printable import printable

MISSING = "–"
"""What a cell says when the question does not arise (the gradient of a buffer)."""
_EIGHTHS = " ▏▎▍▌▋▊▉"


def short(value: float, digits: int = 2) -> str:
    """Write a number with few significant figures, without exponent between 0.001 and 10000.

    >>> [short(x) for x in (0.0671, 12.3, 1.31e-5, 0.0, float("inf"))]
    ['0.067', '12', '1.3e-05', '0', 'inf']
    """
    value = float(value)
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    if not exponent:  # inf, nan
        return mantissa
    power = int(exponent)
    if -3 <= power < 4:
        text = f"{float(mantissa + 'e' + exponent):.{max(0, digits - 1 - power)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{exponent}"


def precise(value: float) -> str:
    """Write a number for a hover: five figures, as many as two machines agree on for single precision."""
    return short(value, 5)


def span(values: Iterable[float]) -> str:
    """Write the range of some numbers, as ``smallest…largest``; NaN is named apart."""
    everything = list(values)
    ordered = sorted(v for v in everything if v == v)
    ends = [short(v) for v in ordered[:1] + ordered[-1:]]
    text = "…".join(dict.fromkeys(ends))
    if len(ordered) == len(everything):
        return text
    return f"{text}, nan" if text else "nan"


def with_tied(names: Sequence[str]) -> str:
    """A tensor's first name, and those that it is tied to: ``emb.weight (tied: out.weight)``."""
    first, *tied = map(printable, names)
    return first + (f" (tied: {', '.join(tied)})" if tied else "")


def width(text: str) -> int:
    """Columns that a printable text takes in a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)


def cut(text: str, columns: int) -> str:
    """Cut a text in the middle, so that both ends of a long name can be read."""
    if width(text) <= columns:
        return text
    tail = (columns - 1) // 2
    head = columns - 1 - tail
    while width(text[:head]) > columns - 1 - tail:
        head -= 1
    end = len(text) - tail
    while width(text[end:]) > tail:
        end += 1
    return text[:head] + "…" + text[end:]


def some(names: Sequence[str], shown: int = 3) -> str:
    """Name the first few and count the others: ``a, b, c … and 11 more``; a lone other is named too."""
    if len(names) == shown + 1:
        shown += 1
    first = ", ".join(names[:shown])
    return f"{first} … and {len(names) - shown} more" if len(names) > shown else first


def plural(count: int, noun: str) -> str:
    """``1 tensor``, ``2 tensors``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


NO_STEP = "no step recorded yet: call step() of a watched optimizer inside the with block"


def likewise(count: int) -> str:
    """Comment under a cure that ``count`` more tensors need."""
    return f"# likewise for the {'other' if count == 1 else f'{count} others'}"


def blocks(fill: float, columns: int = 12) -> str:
    """Draw a bar of block characters, ``fill`` between 0 and 1; at least a sliver, so that it is seen."""
    eighths = max(1, round(min(max(fill, 0.0), 1.0) * columns * 8))
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")
