"""The line of code that builds an optimizer or scheduler anew, for cures."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def remade(thing: Any, first: str, known: Mapping[str, Any]) -> str:
    """The call that builds a thing of this class anew, naming what differs from the class's defaults.

    Parameters
    ----------
    thing
        An optimizer or a scheduler. A class that is not torch's is called by its bare name.
    first
        The code of the first argument.
    known
        The values of its other arguments; ``...`` stands for one that is needed and not among them.
    """
    kind = type(thing)
    home = {"torch.optim.lr_scheduler": "torch.optim.lr_scheduler.", "torch.optim.swa_utils": ""}
    prefix = home.get(kind.__module__, "torch.optim." if kind.__module__.startswith("torch.optim") else "")
    arguments = [first]
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[2:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.append("...")  # whatever they were
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name == "last_epoch":
            continue
        value = known.get(name)
        if isinstance(value, Tensor) and value.dim() == 0:
            value = float(value)
        plain = isinstance(value, (bool, int, float, str, list, tuple))
        if parameter.default is parameter.empty and not plain:
            arguments.append("...")
        elif plain and (value != parameter.default or name == "lr"):
            arguments.append(f"{name}={value!r}")
    return f"{prefix}{kind.__name__}({', '.join(arguments)})"


def remade_optimizer(optimizer: Optimizer, parameters: str) -> str:
    """The call that builds an optimizer anew.

    Parameters
    ----------
    parameters
        The code of what it shall hold. Several groups are left to the user (``[...]``), and with them a
        learning rate that each group sets.
    """
    groups, known = optimizer.param_groups, dict(optimizer.defaults)
    if len(groups) > 1:
        parameters = "[...]"
        if any(group.get("initial_lr", group.get("lr")) != known.get("lr") for group in groups):
            known.pop("lr", None)
    else:
        known |= {name: value for name, value in groups[0].items() if name in known}
        if "initial_lr" in groups[0]:  # from before a scheduler changed it
            known["lr"] = groups[0]["initial_lr"]
    return remade(optimizer, parameters, known)


def groups_hint(call: str) -> str:
    """What to say of the groups that such a call leaves to the user, for the comment on its line."""
    return "[...]: your groups; " if "[...]" in call else ""
