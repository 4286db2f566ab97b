"""Parameter groups by name pattern, for any ``torch.optim`` optimizer.

`param_groups` is the front door. What it is made of: ``listed`` (the list, its table, its code), ``depth``
(the layers of a model), ``no_decay`` (what is spared weight decay), ``options`` (what cannot be right).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from layerlab.group_options import Group
from layerlab.groups.depth import Layer, layers
from layerlab.groups.listed import About, ParamGroups
from layerlab.groups.no_decay import is_norm_or_bias
from layerlab.groups.options import check_lr, check_options
from layerlab.names import Named, Pattern, find, listing, tensors

__all__ = ["ParamGroups", "param_groups"]

Options: TypeAlias = Mapping[str, Any]
"""Options of a group: what the optimizer takes by name (``lr``, ``weight_decay`` …)."""
Unmatched: TypeAlias = Literal["error", "leave out"] | Options

UNMATCHED = "all that is left"
NO_DECAY = "norm and bias"


@dataclass
class _Share:
    """What one pattern takes."""

    label: str
    options: Options
    members: list[Named]


def param_groups(
    model: nn.Module,
    patterns: Mapping[Any, Options],
    *,
    unmatched: Unmatched = "error",
    frozen: Literal["keep", "leave out"] = "keep",
    no_decay: Literal["norm and bias"] | None = None,
    layer_decay: float | None = None,
    optimizer: Callable[..., object] | None = None,
) -> ParamGroups:
    """Sort a model's parameters into groups for an optimizer, by their names.

    >>> groups = param_groups(net, {"fc": {"lr": 1e-2}, "*": {"lr": 1e-3}})  # doctest: +SKIP
    >>> optimizer = torch.optim.SGD(groups, momentum=0.9)  # doctest: +SKIP

    Parameters
    ----------
    model
        Any module, wrapped (DistributedDataParallel, torch.compile) or not.
    patterns
        From a pattern to the options of its group. A pattern is a name, a module's name, a glob, a compiled
        regular expression, or a tuple of these; see `layerlab.names.find`. The first one that matches a
        parameter takes it, so each is in exactly one group; a tied one is taken once, by any of its names.
    unmatched
        What becomes of parameters that no pattern matches: ``"error"``, ``"leave out"`` (they do not train),
        or the options of a last group for them.
    frozen
        Parameters whose ``requires_grad`` is False: ``"keep"`` them, which does no harm (the optimizer skips
        what has no gradient) and lets them train once they are released; or ``"leave out"``.
    no_decay
        ``"norm and bias"`` gives weight decay 0 to biases, normalisation layers and all other parameters of
        one dimension or none, in groups of their own; embeddings keep theirs.
    layer_decay
        A factor between 0 and 1 by which lr falls from each layer to the one below it: the head has the lr
        that is given, a parameter ``n`` layers below it ``lr * layer_decay**n`` (layer-wise learning rate
        decay: ELECTRA, Clark et al. 2020; BEiT, Bao et al. 2021). What counts as a layer is said in
        `layerlab.groups.depth.layers`, and the table shows it.
    optimizer
        The class that the groups are for, such as ``torch.optim.AdamW``: option names are then checked.

    Returns
    -------
    ParamGroups
        A list of dicts that shows itself as a table. They come in the order of the patterns, within one by
        layer and then with weight decay before without. ``param_names`` holds the names of ``params``, as
        ``Optimizer(model.named_parameters())`` has them since torch 2.6.

    Raises
    ------
    ValueError
        A pattern matches nothing, or only what earlier ones took; a parameter is matched by none; an option
        that is the group's own or that the optimizer does not have; a factor out of range, or no ``lr`` for
        it to multiply; an unknown choice; a model without parameters, or lazy ones.
    TypeError
        `model`, `patterns`, a pattern, its options or `optimizer` is of the wrong type.

    Notes
    -----
    An optimizer keeps these very dicts and writes its defaults into them: make the groups anew for a second
    one. As its groups have names, one that is added later must have them too (torch 2.6 and newer):
    ``optimizer.add_param_group({"params": list(module.named_parameters())})``.
    """
    _check_choices(frozen, no_decay, layer_decay)
    shares = _shares(model, patterns, optimizer)
    left = _left(model, shares)
    left_out: list[tuple[str, Sequence[Named]]] = []
    if isinstance(unmatched, Mapping):
        check_options(unmatched, "unmatched", optimizer)
        shares.append(_Share(UNMATCHED, unmatched, left))
    elif unmatched == "leave out":
        left_out.append(("matched by no pattern", left))
    elif unmatched != "error":
        raise ValueError(f"unmatched={unmatched!r} is neither 'error' nor 'leave out' nor a dict of options")
    elif left:
        raise ValueError(
            f"no pattern matches {listing(named.name for named in left)}: a last pattern '*' takes the rest, "
            "unmatched='leave out' lets them not train, unmatched={...} gives them options of their own"
        )
    if frozen == "leave out":
        out = {
            id(named.tensor) for share in shares for named in share.members if not named.tensor.requires_grad
        }
        left_out.append(("frozen", [named for named in tensors(model) if id(named.tensor) in out]))
        for share in shares:
            share.members = [named for named in share.members if named.tensor.requires_grad]
    shares = [share for share in shares if share.members]
    if not shares:
        raise ValueError("no parameter is left for any group: all are frozen or left out")
    groups = [one for share in shares for one in _split(model, share, no_decay, layer_decay)]
    return ParamGroups(model, groups, left_out)


def _check_choices(frozen: object, no_decay: object, layer_decay: object) -> None:
    if frozen not in ("keep", "leave out"):
        raise ValueError(f"frozen={frozen!r} is neither 'keep' nor 'leave out'")
    if no_decay not in (None, NO_DECAY):
        raise ValueError(f"no_decay={no_decay!r} is neither None nor {NO_DECAY!r}")
    if layer_decay is None:
        return
    if isinstance(layer_decay, bool) or not isinstance(layer_decay, (int, float)):
        raise TypeError(f"layer_decay must be a number such as 0.75, not {layer_decay!r}")
    if not 0 < layer_decay <= 1:
        raise ValueError(
            f"layer_decay={layer_decay!r} must be above 0 and at most 1: lr falls towards the input"
        )


def _shares(
    model: nn.Module, patterns: Mapping[Any, Options], optimizer: Callable[..., object] | None
) -> list[_Share]:
    """Let each pattern take what it matches and no earlier one took."""
    given: object = patterns
    if not isinstance(given, Mapping):
        raise TypeError(f"patterns must be a dict {{pattern: options}}, not {type(given).__name__}")
    if not patterns:
        raise ValueError("there is no pattern: {'*': {}} puts every parameter into one group")
    takers: dict[int, str] = {}
    shares = []
    for pattern, options in patterns.items():
        label = _label(pattern)
        check_options(options, f"pattern {label!r}", optimizer)
        found = find(model, pattern, buffers=False)
        members = [named for named in found if id(named.tensor) not in takers]
        if not members:
            earlier = listing(dict.fromkeys(repr(takers[id(named.tensor)]) for named in found))
            raise ValueError(
                f"pattern {label!r} gets nothing: {earlier} stands before it and took all that it matches "
                f"({listing(named.name for named in found)}). The first match wins: put it first"
            )
        takers.update((id(named.tensor), label) for named in members)
        shares.append(_Share(label, options, members))
    return shares


def _left(model: nn.Module, shares: Sequence[_Share]) -> list[Named]:
    """What no pattern took; refuses parameters without a shape."""
    parameters = [named for named in tensors(model) if named.kind == "parameter"]
    lazy = [named.name for named in parameters if is_lazy(named.tensor)]
    if lazy:
        raise ValueError(f"{listing(lazy)} has no shape yet: run the model once on a batch, then make groups")
    taken = {id(named.tensor) for share in shares for named in share.members}
    return [named for named in parameters if id(named.tensor) not in taken]


def _split(
    model: nn.Module, share: _Share, no_decay: str | None, layer_decay: float | None
) -> list[tuple[Group, About]]:
    """Make the groups of one pattern: one, or several by layer and weight decay."""
    label = f"pattern {share.label!r}" if share.label != UNMATCHED else "unmatched"
    if layer_decay is not None:
        check_lr(share.options, label)
    where = layers(model) if layer_decay is not None else {}
    parts: dict[tuple[Layer | None, bool], list[Named]] = {}
    for named in share.members:
        spared = no_decay is not None and is_norm_or_bias(named)
        parts.setdefault((where.get(id(named.tensor)), spared), []).append(named)
    groups = []
    order = sorted(parts, key=lambda part: (-part[0].depth if part[0] else 0, part[1]))
    for layer, spared in order:
        members = parts[layer, spared]
        group = _group(members, share.options)
        if spared:
            group["weight_decay"] = 0.0
        factor = ""
        if layer is not None and layer_decay is not None:
            group["lr"] = group["lr"] * layer_decay**layer.depth
            factor = f"{layer_decay:g}^{layer.depth} = {layer_decay**layer.depth:.3g}"
        about = About(share.label, NO_DECAY if spared else "", layer.name if layer else "", factor)
        groups.append((group, about))
    return groups


def _group(members: Sequence[Named], options: Options) -> Group:
    """A group of its own: a scheduler writes into an lr that is a tensor, so no two groups share one."""
    own = {name: v.clone() if isinstance(v, torch.Tensor) else v for name, v in options.items()}
    tensors_of = [named.tensor for named in members]
    return {"params": tensors_of, "param_names": [named.name for named in members], **own}


def _label(pattern: Pattern) -> str:
    if isinstance(pattern, str):
        return pattern
    if isinstance(pattern, re.Pattern):
        return str(pattern.pattern)
    return ", ".join(map(_label, pattern)) if isinstance(pattern, (tuple, frozenset)) else repr(pattern)
