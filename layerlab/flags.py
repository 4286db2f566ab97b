"""The flag that freezes, ``requires_grad``, and attributes that somebody took for it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, Final

from torch import nn

FLAG: Final = "requires_grad"
_FAR: set[str] = set()
"""Attributes that have been looked at and are not named like the flag: a check runs at every step."""
_MANY = 4096


def near_flags(thing: Any) -> Iterator[tuple[str, bool]]:
    """Plain attributes of a module or tensor that are yes or no, and named (almost) like the flag.

    They do nothing: a module has no such flag, and a parameter keeps its own elsewhere.
    """
    attributes = getattr(thing, "__dict__", {})
    for name in [one for one in attributes if one not in _FAR]:
        if not difflib.get_close_matches(name, [FLAG], cutoff=0.85):
            if len(_FAR) < _MANY:
                _FAR.add(name)
        elif isinstance(attributes[name], (bool, int)):
            yield name, bool(attributes[name])


def inert_flags(module: nn.Module) -> Iterator[tuple[str, bool, str]]:
    """Such attributes of a module whose parameters have other flags; with why they do nothing."""
    for attribute, value in near_flags(module):
        if not all(p.requires_grad == value for p in module.parameters()):
            why = "a module has no such flag" if attribute == FLAG else f"the flag is called {FLAG}"
            yield attribute, value, why


def set_below(where: str, attribute: str, value: bool) -> str:
    """The line that does to a module, called `where` in code, what such an attribute was meant to do."""
    line = f"{where}.{FLAG}_({value})"
    hides_the_method = attribute == f"{FLAG}_"
    return f"del {where}.{attribute}; {line}" if hides_the_method else line
