"""Training that can be stopped and go on, and a frozen backbone whose features are computed once.

`Run` trains a model epoch by epoch; stopped after any epoch it goes on bitwise as if it had not been.
`cached_features` gives the head of a frozen backbone its inputs, computed once. `evaluate` measures.
"""

from __future__ import annotations

from layerlab.training.evaluating import Batches, Score, evaluate
from layerlab.training.features import Features, cached_features
from layerlab.training.machine import best_device, hardware, threads
from layerlab.training.run import Epoch, Run

__all__ = [
    "Batches",
    "Epoch",
    "Features",
    "Run",
    "Score",
    "best_device",
    "cached_features",
    "evaluate",
    "hardware",
    "threads",
]
