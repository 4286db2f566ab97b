"""Which tensors a name pattern means.

Identity, never equality, decides which tensor is which: two fresh biases are equal and yet two tensors.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from layerlab.printable import printable

Kind = Literal["parameter", "buffer"]
Pattern: TypeAlias = "str | re.Pattern[str] | Iterable[str | re.Pattern[str]]"
"""A name, a glob, a compiled regular expression, or several of these; see `find`."""

_COMPILED = "_orig_mod"  # the name under which torch.compile keeps the module that it wraps


@dataclass(frozen=True, eq=False)
class Named:
    """One parameter or buffer of a model and all that names it."""

    name: str
    """Its first name in the model, wrapper prefixes stripped."""
    names: tuple[str, ...]
    """All its names: more than one when it is tied (shared)."""
    tensor: torch.Tensor = field(repr=False)
    kind: Kind
    module_name: str
    """Name of the module that owns it (the first one, when it is tied); empty for the model itself."""
    module: nn.Module = field(repr=False)


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this rank holds only a part of it: a DTensor, as ``fully_shard`` makes them."""
    return type(tensor).__name__ == "DTensor"


def bare(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, DataParallel and torch.compile; the model itself if bare.

    Raises
    ------
    TypeError
        `model` is not a ``torch.nn.Module``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        elif (inner := dict(model.named_children()).get(_COMPILED)) is not None:
            model = inner
        else:
            return model


def modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module once with its first name, in the model's own order; the model itself is named ``""``."""
    seen: dict[int, tuple[str, nn.Module]] = {}
    for name, module in bare(model).named_modules():
        seen.setdefault(id(module), (unwrapped(name), module))
    return list(seen.values())


def tensors(model: nn.Module) -> list[Named]:
    """Every parameter and buffer of a model, in its own order: module by module, parameters first.

    Parameters
    ----------
    model
        Any module. The prefixes of DistributedDataParallel, DataParallel (``module.``) and torch.compile
        (``_orig_mod.``) are left out of the names.

    Returns
    -------
    list of Named
        Each tensor once, a tied one with all its names. Buffers count whether persistent or not.

    Raises
    ------
    TypeError
        `model` is not a ``torch.nn.Module``.
    """
    first: dict[int, tuple[torch.Tensor, Kind, str, nn.Module]] = {}
    names: dict[int, list[str]] = {}
    for name, tensor, kind, owner_name, owner in _walk(bare(model)):
        first.setdefault(id(tensor), (tensor, kind, owner_name, owner))
        known = names.setdefault(id(tensor), [])
        if name not in known:
            known.append(name)
    return [
        Named(names[key][0], tuple(names[key]), tensor, kind, owner_name, owner)
        for key, (tensor, kind, owner_name, owner) in first.items()
    ]


def find(model: nn.Module, pattern: Pattern, *, parameters: bool = True, buffers: bool = True) -> list[Named]:
    """Find the tensors of a model that a pattern means.

    Parameters
    ----------
    model
        Any module, wrapped (DistributedDataParallel, torch.compile) or not.
    pattern
        A str is a tensor's name (``"fc.bias"``), a module's name, which means everything below it
        (``"layer1"``, ``"layer1.0.bn1"``), or, if it has any of ``*?[``, a glob of either
        (``"layer[1-3]"``, ``"*.bias"``; a ``*`` also crosses dots). A compiled regular expression must match
        a tensor's whole name (``fullmatch``). Several of these in a list mean all that any of them means.
        A tied tensor is found by any of its names.
    parameters, buffers
        Whether to return these.

    Returns
    -------
    list of Named
        In the model's order, none twice.

    Raises
    ------
    ValueError
        A pattern is empty or matches nothing; the message lists near names.
    TypeError
        `model` is not a module, or `pattern` (or an entry of it) is none of the above.
    """
    everything = tensors(model)
    chosen: set[int] = set()
    for one in _as_patterns(pattern):
        matched = [named for named in everything if any(_matches(one, name) for name in named.names)]
        if not matched:
            raise ValueError(_nothing_matches(model, everything, one))
        wanted = [named for named in matched if (parameters if named.kind == "parameter" else buffers)]
        if not wanted:
            kinds = " and ".join(sorted({f"{named.kind}s" for named in matched}, reverse=True))
            raise ValueError(
                f"pattern {_text(one)!r} matches only {kinds} ({listing(named.name for named in matched)}), "
                "which this search leaves out"
            )
        chosen.update(id(named.tensor) for named in wanted)
    return [named for named in everything if id(named.tensor) in chosen]


def left_out(model: nn.Module, parameters: Iterable[Named], held: Container[int]) -> list[Named]:
    """Trainable parameters that no optimizer holds; those of an averaged copy are not meant to be in one.

    Parameters
    ----------
    held
        The ``id`` of everything that some optimizer holds.
    """
    found = [named for named in parameters if named.tensor.requires_grad and id(named.tensor) not in held]
    if not found:
        return []
    copies = (module for module in model.modules() if isinstance(module, AveragedModel))
    averaged = {id(p) for copy in copies for p in copy.parameters()}
    return [named for named in found if id(named.tensor) not in averaged]


def unwrapped(name: str) -> str:
    """A dotted name without the part that torch.compile puts in."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def _walk(model: nn.Module) -> Iterator[tuple[str, torch.Tensor, Kind, str, nn.Module]]:
    """Every name of every tensor: shared modules are walked under each of their names."""
    for module_name, module in model.named_modules(remove_duplicate=False):
        owner = unwrapped(module_name)
        prefix = f"{owner}." if owner else ""
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield prefix + name, parameter, "parameter", owner, module
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
            yield prefix + name, buffer, "buffer", owner, module


def _as_patterns(pattern: Pattern) -> list[str | re.Pattern[str]]:
    if isinstance(pattern, (str, re.Pattern)):
        patterns = [pattern]
    elif isinstance(pattern, Iterable) and not isinstance(pattern, (bytes, torch.Tensor, nn.Module)):
        patterns = list(pattern)
    else:
        raise TypeError(_wrong_type(pattern))
    if not patterns:
        raise ValueError("the list of patterns is empty; '*' means every tensor")
    for one in patterns:
        if not isinstance(one, str) and not (isinstance(one, re.Pattern) and isinstance(one.pattern, str)):
            raise TypeError(_wrong_type(one))
        if one == "":
            raise ValueError("the empty pattern '' names nothing; '*' means every tensor")
    return patterns


def _wrong_type(pattern: object) -> str:
    kind = "regular expression for bytes" if isinstance(pattern, re.Pattern) else type(pattern).__name__
    return f"a pattern is a str, a compiled regular expression or a list of these, not {kind}"


def _matches(pattern: str | re.Pattern[str], name: str) -> bool:
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(name) is not None
    parts = name.split(".")
    rungs = [".".join(parts[: i + 1]) for i in range(len(parts))]  # the name and every module above it
    if pattern in rungs:
        return True
    return any(c in pattern for c in "*?[") and any(fnmatchcase(rung, pattern) for rung in rungs)


def _text(pattern: str | re.Pattern[str]) -> str:
    return pattern.pattern if isinstance(pattern, re.Pattern) else pattern


def listing(names: Iterable[str], most: int = 4) -> str:
    """The first few names and how many more there are, for a message."""
    every = [printable(name) for name in names]
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest


def _nothing_matches(model: nn.Module, everything: list[Named], pattern: str | re.Pattern[str]) -> str:
    """The message for a pattern that matches nothing: what is near, or what there is."""
    text = _text(pattern)
    if not everything:
        return f"pattern {text!r} matches nothing: the model has no parameters or buffers"
    holders = dict(modules(model))
    if text in holders:
        kind = type(holders[text]).__name__
        return f"pattern {text!r} matches nothing: the {kind} of that name has no parameters or buffers"
    known = [name for named in everything for name in named.names]
    candidates = {name.lower(): name for name in [*known, *filter(None, holders)]}
    near = difflib.get_close_matches(text.lower(), candidates, n=4)
    hint = ""
    if isinstance(pattern, str) and re.search(r"[\\^$|(){}]|\.\*|\.\+", pattern):
        hint = f'; if it is a regex, give re.compile(r"{printable(text)}")'
    if near:
        return f"pattern {text!r} matches nothing; near names: {listing(candidates[n] for n in near)}{hint}"
    return f"pattern {text!r} matches nothing; the model has: {listing(known)}{hint}"
