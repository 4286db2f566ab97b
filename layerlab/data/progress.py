"""A progress bar that is silent unless someone watches."""

from __future__ import annotations

import sys
from typing import Any


def bar(total: int, what: str, *, unit: str, progress: bool | None) -> Any:
    """A tqdm bar on stderr, or in the notebook.

    Parameters
    ----------
    total
        How many units there are.
    what
        Its label.
    unit
        ``"B"`` for bytes, which are shown as kB and MB.
    progress
        True shows it, False does not; None shows it only in a terminal. A notebook's stderr is none, so that
        stored outputs stay the same from run to run.
    """
    from tqdm.auto import tqdm

    if progress is None:
        progress = sys.stderr is not None and sys.stderr.isatty()
    return tqdm(total=total, desc=what, unit=unit, unit_scale=unit == "B", disable=not progress)
