"""The flag that freezes, ``requires_grad``, and attributes that somebody took for it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

FLAG: Final = "requires_grad"


def near_flags(thing: Any) -> Iterator[tuple[str, bool]]:
    """Plain attributes of a module or tensor that are yes or no, and named (almost) like the flag.

    They do nothing: a module has no such flag, and a parameter keeps its own elsewhere.
    """
    for attribute, value in list(getattr(thing, "__dict__", {}).items()):
        if isinstance(value, (bool, int)) and _is_near(attribute):
            yield attribute, bool(value)


@lru_cache(maxsize=4096)
def _is_near(attribute: str) -> bool:
    return bool(difflib.get_close_matches(attribute, [FLAG], cutoff=0.85))
