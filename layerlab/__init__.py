"""See which tensors moved in an optimizer step, which stayed, and why.

>>> import layerlab as ll
>>> with ll.watch(net, optimizer) as ledger:  # doctest: +SKIP
...     ...  # your own training loop
>>> ledger  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerlab.freezing import Freeze, freeze
    from layerlab.ledger import Ledger, watch
    from layerlab.names import find
    from layerlab.record import Reason

__version__ = "0.1.0"

# Loaded when first used: `layerlab doctor` must start where torch does not.
_HOMES = {
    "Freeze": "layerlab.freezing",
    "Ledger": "layerlab.ledger",
    "Reason": "layerlab.record",
    "find": "layerlab.names",
    "freeze": "layerlab.freezing",
    "watch": "layerlab.ledger",
}

__all__ = ["Freeze", "Ledger", "Reason", "find", "freeze", "watch"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'layerlab' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
