"""What `FreezePanel` warns of, each with its cure."""

from __future__ import annotations

from collections.abc import Sequence

from layerlab.names import Named
from layerlab.rules import path

NOTHING_LEFT = "everything is frozen: backward() will raise, for nothing requires a gradient."


def too_late(late: Sequence[Named]) -> str:
    """These were frozen by their flag and have a gradient already."""
    several = len(late) > 1
    return (
        f"too late if step() comes next: {late[0].name}"
        + (f" (and {len(late) - 1} more)" if several else "")
        + " already has a gradient, and step() applies every gradient that is not None. "
        "No harm if a zero_grad() that leaves None comes first. "
        f"Cure: {path(late[0].name)}.grad = None"
        + (", likewise for the others" if several else "")
        + ", or tick “also clear gradients”."
    )


def old_momentum(stored: Sequence[Named], layers: Sequence[str]) -> str:
    """These were released, and the optimizer still has state of them; ``layers`` are those they belong to."""
    several = len(stored) > 1
    cures = (f"for p in {path(layer)}.parameters(): optimizer.state.pop(p, None)" for layer in layers)
    return (
        f"released with old momentum: the optimizer still stores what it knew of {stored[0].name}"
        + (f" (and {len(stored) - 1} more)" if several else "")
        + ". To start afresh: "
        + ("; ".join(cures) if several else f"optimizer.state.pop({path(stored[0].name)}, None)")
        + "."
    )
