"""What a prediction asks about, and how its boxes are grouped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from layerlab.lessons_support.scoring import asked_about
from layerlab.names import tensors
from layerlab.show.fold import LIMIT, module_of


def groups(names: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Sort positions by top-level module where there are too many for one screen; else all in one group."""
    if len(names) <= LIMIT:
        return [("", list(range(len(names))))]
    module, found = module_of(names), dict[str, list[int]]()
    for at, name in enumerate(names):
        found.setdefault(module(name), []).append(at)
    return list(found.items())


def names_asked_about(model_or_names: nn.Module | Iterable[str]) -> dict[str, str]:
    """Every name by which a tensor may be ticked, and the first name of that tensor."""
    if isinstance(model_or_names, nn.Module):
        everything = tensors(model_or_names)
        asked = set(asked_about(everything))
        found = {name: one.name for one in everything if one.name in asked for name in one.names}
    elif isinstance(model_or_names, str):
        raise TypeError(f"give a model or a list of names, such as [{model_or_names!r}], not a str")
    elif not isinstance(model_or_names, Iterable):
        raise TypeError(f"give a model or a list of names, not {type(model_or_names).__name__}")
    else:
        names = list(model_or_names)
        found = {name: name for name in names}
        if len(found) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{twice!r} is asked about twice")
    if not found:
        raise ValueError("there is no tensor to ask about")
    return found
