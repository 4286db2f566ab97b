"""Pictures and pretrained networks, offline first.

`digits` cuts the small default data set, which needs no file at all, into a source and a target task;
`ants_and_bees` reads the photographs of the fine-tuning documents from the folder that ``LAYERLAB_DATA``
names, or downloads them once; `backbone` builds a ResNet with the weights asked for, and
`recalibrate_batchnorm` gives its BatchNorm statistics that fit the pictures at hand. All pictures come as
`Images`. Each result has a ``came_from``, one sentence on where it is from; what cannot be had is a
`DataError` that says the cause and the way out. Nothing is ever replaced by something else in silence.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerlab.data import digits
    from layerlab.data.backbones import Backbone, backbone
    from layerlab.data.errors import DataError
    from layerlab.data.images import Images
    from layerlab.data.insects import ants_and_bees
    from layerlab.data.recalibration import recalibrate_batchnorm

# Loaded when first used: who needs the digits does not wait for torchvision.
_HOMES = {
    "Backbone": "backbones",
    "DataError": "errors",
    "Images": "images",
    "ants_and_bees": "insects",
    "backbone": "backbones",
    "recalibrate_batchnorm": "recalibration",
}

__all__ = [
    "Backbone",
    "DataError",
    "Images",
    "ants_and_bees",
    "backbone",
    "digits",
    "recalibrate_batchnorm",
]


def __getattr__(name: str) -> Any:
    if name == "digits":
        return import_module(f"{__name__}.digits")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
