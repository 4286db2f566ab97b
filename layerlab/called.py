"""What the user's own code calls a model and its optimizers, so that a cure can be pasted as it is."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

from layerlab.names import bare
from layerlab.wrappers import inside


@dataclass(frozen=True)
class Called:
    """Names for the ``model`` and ``optimizer`` of cures.

    Attributes
    ----------
    model
        An expression for the model inside all wrappers.
    optimizers
        A variable for each optimizer.
    """

    model: str = "model"
    optimizers: Sequence[str] = ("optimizer",)

    def in_their_words(self, code: str, optimizer: int | None = None) -> str:
        """Rewrite code that speaks of ``model`` and ``optimizer``; words of prose stay.

        Parameters
        ----------
        optimizer
            Which one of them ``optimizer`` means, where there are several.
        """
        code = re.sub(r"(?<=getattr\()model\b|(?<![\w.])model(?=\.\w|\[)", lambda _: self.model, code)
        several = len(self.optimizers) > 1
        named = "optimizer" if several and optimizer is None else self.optimizers[optimizer or 0]
        return re.sub(r"(?<![\w.])optimizer(?=\.\w|\[| = )", lambda _: named, code)


def by_the_user(model: nn.Module, optimizers: Sequence[Optimizer]) -> Called:
    """Look up which variables of the notebook, or of the script that runs, hold these.

    What is in none of them keeps the name that every cure starts from: it may be local to a function.
    """
    variables = vars(sys.modules["__main__"])
    own, wrapped = _name(bare(model), variables), _name(model, variables)
    if own is None and wrapped is not None:
        own = wrapped
        while isinstance(model, (DistributedDataParallel, DataParallel)):
            model, own = model.module, f"{own}.module"
    found = [_optimizer_name(optimizer, variables) or "optimizer" for optimizer in optimizers]
    return Called(own or "model", found or ["optimizer"])


def _optimizer_name(optimizer: Optimizer, variables: Mapping[str, object]) -> str | None:
    """The variable of the optimizer, or of a wrapper around it."""
    held = [thing for thing in list(variables.values()) if isinstance(thing, Optimizer)]
    around = [wrapper for wrapper in held if _holds(wrapper, optimizer)]
    return next(filter(None, (_name(one, variables) for one in (optimizer, *around))), None)


def _holds(wrapper: Optimizer, optimizer: Optimizer) -> bool:
    try:
        return inside(wrapper) is optimizer
    except TypeError:
        return False


def variable_of(thing: object) -> str | None:
    """The variable of the notebook, or of the script that runs, that holds a thing; None if none does."""
    return _name(thing, vars(sys.modules["__main__"]))


def _name(thing: object, variables: Mapping[str, object]) -> str | None:
    names = (name for name, value in list(variables.items()) if value is thing)
    return next((name for name in names if not name.startswith("_")), None)
