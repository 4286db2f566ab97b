"""What is wrong with the options of parameter groups, said before anything is built."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from layerlab.group_options import MEMBERS


def check_options(options: object, label: str, optimizer: Callable[..., object] | None) -> None:
    """Refuse options that cannot be right.

    Parameters
    ----------
    options
        What was given for one pattern.
    label
        How messages call the pattern.
    optimizer
        A class of optimizers whose option names are the known ones; None: any name may be right.

    Raises
    ------
    TypeError
        They are no mapping, or a name is not a str.
    ValueError
        One of them says who is in the group, or the optimizer has no such option.
    """
    if not isinstance(options, Mapping):
        raise TypeError(
            f"the options of {label} must be a dict such as {{'lr': 0.001}}, not {type(options).__name__}"
        )
    known = known_options(optimizer)
    for name in options:
        if not isinstance(name, str):
            raise TypeError(f"an option's name is a str such as 'lr', not {name!r} ({label})")
        if name in MEMBERS:  # filled in by `layerlab.param_groups`, never given
            raise ValueError(f"{name!r} in the options of {label}: the pattern says who is in the group")
        if known is not None and name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"near names: {', '.join(near)}" if near else f"it has: {', '.join(known)}"
            raise ValueError(f"{_name(optimizer)} has no option {name!r} ({label}); {hint}")


def check_lr(options: Mapping[str, Any], label: str) -> None:
    """Refuse options without a learning rate that can be multiplied.

    Raises
    ------
    ValueError
        There is no ``lr``.
    TypeError
        It is not a number.
    """
    if "lr" not in options:
        raise ValueError(
            f"layer_decay multiplies each group's lr, and {label} has none: give it one, {{'lr': 0.001}}"
        )
    lr = options["lr"]
    if isinstance(lr, bool) or not isinstance(lr, (int, float, torch.Tensor)):
        raise TypeError(f"lr must be a number, not {lr!r} ({label})")


def known_options(optimizer: Callable[..., object] | None) -> list[str] | None:
    """Names of the options that an optimizer takes; None if they cannot be told from its signature.

    Raises
    ------
    TypeError
        `optimizer` cannot be called.
    """
    if optimizer is None:
        return None
    if not callable(optimizer):
        raise TypeError(
            f"optimizer must be a class such as torch.optim.AdamW, not {type(optimizer).__name__}: "
            "the groups are made before the optimizer is"
        )
    parameters = list(inspect.signature(optimizer).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters[1:]]


def _name(optimizer: object) -> str:
    inner = getattr(optimizer, "func", optimizer)  # of a functools.partial
    return str(getattr(inner, "__name__", type(inner).__name__))
