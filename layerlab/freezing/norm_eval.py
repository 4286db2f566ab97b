"""Keeping BatchNorm in eval mode while its layer is frozen, also through later ``model.train()`` calls.

In train mode a BatchNorm module rewrites its running statistics in every forward pass, whatever the flags
of its parameters say. `torch.nn.Module.train` walks the model and calls each module's own ``train``; a held
module carries one of its own that notes the mode asked for and stays in eval.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import MethodType
from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.weak import WeakIdKeyDictionary

from layerlab import names

BatchNorm = Literal["eval", "train"]

_BEFORE = "_train_before_freeze"  # where a module's own `train` override waits, if it had one


@dataclass
class _Hold:
    choices: dict[object, BatchNorm] = field(default_factory=dict)
    """From each active handle's token to what it was told."""
    mode: bool = True
    """The train/eval mode to return to: what was there, or what was asked for since."""

    def in_eval(self) -> bool:
        return "eval" in self.choices.values()


_holds: Any = WeakIdKeyDictionary()  # module -> _Hold


def batchnorm_choice(module: nn.Module) -> BatchNorm | None:
    """What the active `freeze` handles were told about a module's running statistics.

    Returns
    -------
    str or None
        ``"eval"`` if any handle keeps the module in eval mode; ``"train"`` if it lies in a frozen part and
        every handle was told to leave its mode alone; None if no active handle holds it.
    """
    held: _Hold | None = _holds.get(module)
    if held is None:
        return None
    return "eval" if held.in_eval() else "train"


def norms_inside(model: nn.Module, found: Iterable[names.Named]) -> list[tuple[str, nn.Module]]:
    """The modules with running statistics that lie wholly inside what a pattern found.

    That is: all the module's own parameters were found or, of whatever else it has, its statistics were.
    """
    ids = {id(named.tensor) for named in found}
    return [(name, module) for name, module in names.modules(model) if _is_inside(module, ids)]


def _is_inside(module: nn.Module, ids: set[int]) -> bool:
    if not isinstance(module, _NormBase) or module.running_mean is None:
        return False
    parameters = list(module.parameters(recurse=False))
    by_parameters = bool(parameters) and all(id(parameter) in ids for parameter in parameters)
    return by_parameters or {id(module.running_mean), id(module.running_var)} <= ids


def hold(modules: Iterable[nn.Module], token: object, choice: BatchNorm) -> None:
    """Hold modules for the handle that `token` stands for."""
    for module in modules:
        held: _Hold = _holds.setdefault(module, _Hold())
        if choice == "eval":
            if not held.in_eval():
                held.mode = module.training
                _cover(module)
            module.training = False
        held.choices[token] = choice


def release(modules: Iterable[nn.Module], token: object) -> None:
    """Let go of modules; the mode returns when no other handle keeps it. Harmless when not held."""
    for module in modules:
        held: _Hold | None = _holds.get(module)
        if held is None or token not in held.choices:
            continue
        if held.choices.pop(token) == "eval" and not held.in_eval():
            _uncover(module)
            module.training = held.mode
        if not held.choices:
            del _holds[module]


def train(self: nn.Module, mode: bool = True) -> nn.Module:
    """Stay in eval mode and note the mode asked for: a held module's ``train``.

    It has this name and stands at module level because that lets a model be copied (the copy's method is
    bound to the copy) and pickled (a method is stored by its name, so what is loaded has the ``train`` of its
    class).
    """
    held: _Hold | None = _holds.get(self)
    if held is None or not held.in_eval():  # a copy: nobody holds it, so it goes back to normal
        _uncover(self)
        return self.train(mode)
    below = vars(self).get(_BEFORE) or functools.partial(type(self).train, self)
    below(mode)
    held.mode = self.training
    self.training = False
    return self


def _is_covered(module: nn.Module) -> bool:
    return getattr(vars(module).get("train"), "__func__", None) is train


def _cover(module: nn.Module) -> None:
    own = vars(module)
    if "train" in own and not _is_covered(module):
        own[_BEFORE] = own["train"]
    own["train"] = MethodType(train, module)


def _uncover(module: nn.Module) -> None:
    own = vars(module)
    before = own.pop(_BEFORE, None)
    if _is_covered(module):  # else someone has put another one there since: theirs to keep
        del own["train"]
        if before is not None:
            own["train"] = before
