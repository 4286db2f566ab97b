"""A run's state in a file that is there whole or not at all."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from layerlab.data.writing import whole

FORMAT = "layerlab run 1"


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state in place of the one before: whoever reads meanwhile, or after a crash, finds one of them.

    Raises
    ------
    OSError
        It cannot be written (no room, no right): the file is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part, part.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())


def load(path: Path, like: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Read a state back, after a look at whether it belongs to the run whose present state is ``like``.

    Raises
    ------
    ValueError
        It is of another run, or no saved run; the message says what differs.
    """
    try:
        found = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is no saved run: it was cut off, or is something else") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path} is no saved run")
    for key in {**like["about"], **found["about"]}:
        now, then = like["about"].get(key), found["about"].get(key)
        if now != then:
            raise ValueError(f"{path} is of another run: {key} was {then!r} there, here it is {now!r}")
    now, then = (_shapes(one["model"]) for one in (like, found))
    for name in {**now, **then}:
        if now.get(name) != then.get(name):
            raise ValueError(
                f"{path} is of another model: {name} is {then.get(name, 'missing')} there, "
                f"here {now.get(name, 'missing')}"
            )
    sizes = [[len(group["params"]) for group in one["optimizer"]["param_groups"]] for one in (like, found)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"{path} is of another optimizer: groups of {sizes[1]} parameters, here {sizes[0]}")
    if (like["scheduler"] is None) != (found["scheduler"] is None):
        raise ValueError(f"{path} is of another run: only one of the two has a scheduler")
    return found


def copied(state: Any, into: Any = None) -> Any:
    """Copy a state, tensors and all; those of an earlier copy ``into`` are written over where they fit.

    That spares their memory being asked for anew, which takes longer than the copying.
    """
    if isinstance(state, torch.Tensor):
        known = (state.shape, state.dtype, state.device)
        fits = isinstance(into, torch.Tensor) and (into.shape, into.dtype, into.device) == known
        return into.copy_(state) if fits else state.detach().clone()
    if isinstance(state, Mapping):
        old = into if isinstance(into, Mapping) else {}
        return {key: copied(value, old.get(key)) for key, value in state.items()}
    return copy.deepcopy(state)


def _shapes(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(t.shape) if isinstance(t, torch.Tensor) else type(t).__name__ for name, t in state.items()
    }
