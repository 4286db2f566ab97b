"""Where in a row of blocks a freeze may lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Place = tuple[int, ...]
"""The frozen blocks by number, from the input on; the first one is 1."""

FIRST: Final = "the first k blocks"
LAST: Final = "the last k blocks"
ONE: Final = "block k alone"


def sweep(count: int) -> Mapping[str, Mapping[int, Place]]:
    """List the places to try, for each k from 1 on: the first k blocks, the last k, and block k alone.

    Parameters
    ----------
    count
        How many blocks there are.

    Raises
    ------
    ValueError
        For fewer blocks than one.
    """
    if count < 1:
        raise ValueError(f"count={count}: there must be a block to freeze")
    blocks = range(1, count + 1)
    return {
        FIRST: {k: tuple(blocks[:k]) for k in blocks},
        LAST: {k: tuple(blocks[count - k :]) for k in blocks},
        ONE: {k: (k,) for k in blocks},
    }
