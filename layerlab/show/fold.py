"""Which rows may share a line, so that a large network is never a wall of digits."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

SMALL = 8
"""Networks with at most this many tensors are shown whole."""
LIMIT = 20
"""Rows that fit on one screen: beyond it, alike rows are folded."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row that may be folded with others of its kind."""

    name: str
    kind: Hashable
    """Rows are alike when their kinds are equal."""
    surprising: bool
    """Shown singly, unless more than `LIMIT` are of the very same kind."""


@dataclass(frozen=True, slots=True)
class Group:
    """Positions of the items on one line, and the module that they have in common."""

    label: str
    positions: tuple[int, ...]


def fold(items: Sequence[Item]) -> list[Group]:
    """Group items into lines, in the order of each line's first item.

    Up to `LIMIT` items stay single. Beyond it alike items are grouped by top-level module, or, where even
    that leaves too many lines, over the whole model. Surprising items never join quiet ones.
    """
    if len(items) <= LIMIT:
        return [Group(item.name, (i,)) for i, item in enumerate(items)]
    counts = Counter(item.kind for item in items if item.surprising)
    single = {i for i, item in enumerate(items) if item.surprising and counts[item.kind] <= LIMIT}
    grouped = _group(items, single, module_of([item.name for item in items]))
    if len(grouped) - len(single) > LIMIT:
        grouped = _group(items, single, lambda _: "all modules")
    return grouped


def module_of(names: Sequence[str]) -> Callable[[str], str]:
    """Find the first name component in which the tensors differ (skipping a common ``backbone.``)."""
    paths = [name.split(".") for name in names]
    same = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    depth = len(list(same)) + 1
    return lambda name: ".".join(name.split(".")[:depth])


def _group(items: Sequence[Item], single: set[int], label: Callable[[str], str]) -> list[Group]:
    lines: dict[Hashable, list[int]] = {}
    for i, item in enumerate(items):
        key = i if i in single else (label(item.name), item.kind, item.surprising)
        lines.setdefault(key, []).append(i)
    return [
        Group(items[at[0]].name if len(at) == 1 else label(items[at[0]].name), tuple(at))
        for at in lines.values()
    ]
