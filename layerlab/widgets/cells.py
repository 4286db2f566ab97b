"""What a widget may know of the notebook's cells: when one has run, which one made it, when none runs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod


def shell() -> Any:
    """The running IPython; None outside it, and then it is not imported either."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def after_each_cell(method: Callable[[], None]) -> Callable[[], None]:
    """Call a bound method after every cell, held weakly; outside IPython, never.

    Returns
    -------
    callable
        What ends it. It ends by itself when the method's object is gone.
    """
    here = shell()
    if here is None:
        return lambda: None
    weak = WeakMethod(method)

    def ran(result: object = None) -> None:
        alive = weak()
        if alive is not None:
            alive()
        else:
            end()

    def end() -> None:
        if ran in here.events.callbacks["post_run_cell"]:
            here.events.unregister("post_run_cell", ran)

    here.events.register("post_run_cell", ran)
    return end


def this_cell() -> tuple[str, int] | None:
    """The id of the cell that runs now, and the number of its run; None where the front end tells no id."""
    here = shell()
    parent = here.get_parent() if hasattr(here, "get_parent") else {}
    cell = parent.get("metadata", {}).get("cellId")
    return (cell, here.execution_count) if cell else None


def ran_anew(cell: tuple[str, int] | None, now: tuple[str, int] | None) -> bool:
    """Whether the cell that made a widget runs again: its output is gone, so the widget has no place left."""
    return cell is not None and now is not None and cell[0] == now[0] and cell != now


def when_no_cell_runs(call: Callable[[], None]) -> None:
    """Call in the main thread: now if this is it, or as soon as it is free.

    JupyterLab hands the messages of widgets to another thread of the kernel ("subshells"), also while a cell
    runs, and now and then to this one. A model must not change in the middle of a training step, and no two
    reactions may mix.
    """
    loop = getattr(getattr(shell(), "kernel", None), "io_loop", None)
    if loop is None or threading.current_thread() is threading.main_thread():
        call()
    else:
        loop.add_callback(call)
