"""In a Jupyter kernel a ledger shows itself as a `StepView`; elsewhere it stays text and a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from layerlab.widgets.cells import shell

if TYPE_CHECKING:
    from layerlab.ledger import Ledger
    from layerlab.widgets.step_view import StepView

_views: WeakKeyDictionary[Ledger, ref[StepView]] = WeakKeyDictionary()


def register() -> None:
    """Tell the kernel that runs this, if one does, how to display a ledger.

    By name: nothing is imported before a ledger is displayed.
    """
    here = shell()
    if hasattr(here, "kernel"):
        formatter = here.display_formatter.mimebundle_formatter
        formatter.for_type_by_name("layerlab.ledger", "Ledger", bundle)


def bundle(ledger: Ledger, include: Any = None, exclude: Any = None) -> dict[str, Any]:
    """Display a ledger: the same view wherever the same ledger is displayed, and its table beside it."""
    from layerlab.widgets.step_view import StepView

    known = _views.get(ledger, lambda: None)()
    if known is None or known.comm is None:  # closed
        known = StepView(ledger)
        _views[ledger] = ref(known)
    return known._repr_mimebundle_()
