"""See which tensors moved in an optimizer step, which stayed, and why.

>>> import layerlab as ll
>>> with ll.watch(net, optimizer) as ledger:  # doctest: +SKIP
...     ...  # your own training loop
>>> ledger  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from layerlab.notebook import register

if TYPE_CHECKING:
    from layerlab.auditing import audit
    from layerlab.freezing import freeze
    from layerlab.groups import param_groups
    from layerlab.ledger import Ledger, watch
    from layerlab.lessons_support.checks import Check
    from layerlab.names import find
    from layerlab.record import Reason
    from layerlab.show import legend, table
    from layerlab.show.picture import Picture
    from layerlab.training.ranks import Ranks
    from layerlab.unfreezing import Unfreeze
    from layerlab.widgets.compare import Compare
    from layerlab.widgets.explore import Explore
    from layerlab.widgets.freeze_panel import FreezePanel
    from layerlab.widgets.predict import Predict
    from layerlab.widgets.step_view import StepView
    from layerlab.widgets.train_lab import TrainLab

__version__ = "0.1.0"

# Loaded when first used: `layerlab doctor` must start where torch does not.
_HOMES = {
    "Check": "layerlab.lessons_support.checks",
    "Compare": "layerlab.widgets.compare",
    "Explore": "layerlab.widgets.explore",
    "FreezePanel": "layerlab.widgets.freeze_panel",
    "Ledger": "layerlab.ledger",
    "Picture": "layerlab.show.picture",
    "Predict": "layerlab.widgets.predict",
    "Ranks": "layerlab.training.ranks",
    "Reason": "layerlab.record",
    "StepView": "layerlab.widgets.step_view",
    "TrainLab": "layerlab.widgets.train_lab",
    "Unfreeze": "layerlab.unfreezing",
    "audit": "layerlab.auditing",
    "find": "layerlab.names",
    "freeze": "layerlab.freezing",
    "legend": "layerlab.show",
    "param_groups": "layerlab.groups",
    "table": "layerlab.show",
    "watch": "layerlab.ledger",
}

__all__ = [
    "Check",
    "Compare",
    "Explore",
    "FreezePanel",
    "Ledger",
    "Picture",
    "Predict",
    "Ranks",
    "Reason",
    "StepView",
    "TrainLab",
    "Unfreeze",
    "audit",
    "find",
    "freeze",
    "legend",
    "param_groups",
    "table",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'layerlab' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register()
