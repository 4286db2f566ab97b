"""Freezing by a learning rate of 0, for parameters that share a group with others too.

A group that is meant as a whole gets lr 0 where it is. From a group that is meant in part, what is meant
moves to a new group at the end of ``param_groups`` with the same options and lr 0. What is where follows from
which parameters are held *now*: after every change `_arrange` brings each of the optimizer's own groups in
order, so handles may overlap and be released in any order, and groups added by others stay as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import ASGD, LBFGS, Optimizer, Rprop
from torch.utils.weak import WeakIdKeyDictionary

from layerlab.names import Named, listing

_Group = dict[str, Any]

_DEAF: dict[type[Optimizer], str] = {  # optimizers that lr = 0 would not stop, or not in part
    ASGD: "it steps by the 'eta' in its state, which follows lr one step late",
    Rprop: "it steps by the 'step_size' in its state and reads lr only once",
    LBFGS: "it has a single parameter group and moves all of it along one direction",
}


@dataclass(eq=False)
class _Place:
    """A group of an optimizer, found again though its dict or its list is renewed (``load_state_dict``)."""

    group: _Group
    params: list[torch.Tensor]

    def find(self, optimizer: Optimizer) -> _Group | None:
        groups = optimizer.param_groups
        return next((g for g in groups if g is self.group or g["params"] is self.params), None)


@dataclass(eq=False)
class _Own:
    """One of the optimizer's own groups, of which something is held."""

    place: _Place
    order: list[torch.Tensor]
    """What was in it, in order."""
    held: dict[object, list[torch.Tensor]] = field(default_factory=dict)
    """From each active handle's token to what it holds of this group."""
    lr: Any = None
    """The learning rate to put back; meant only while `zeroed` or `split`."""
    zeroed: bool = False
    """Whether the whole group is at lr 0."""
    split: _Place | None = None
    """The group that was split off."""

    def find(self, optimizer: Optimizer) -> tuple[_Group | None, _Group | None]:
        """The group and what was split off from it, as far as they are still there."""
        return self.place.find(optimizer), self.split.find(optimizer) if self.split else None


@dataclass(frozen=True)
class Share:
    """The part of one of the optimizer's own groups that a handle is going to hold."""

    own: _Own
    position: int
    """The group's place in ``param_groups``."""
    tensors: list[torch.Tensor]
    whole: bool
    """Whether that is all there is in the group."""
    named: bool
    """Whether the group keeps the names of its parameters (``param_names``)."""


@dataclass(frozen=True)
class OwnGroup:
    """One of the optimizer's own groups, read as it would be without any `freeze`."""

    parameters: tuple[torch.Tensor, ...]
    """All that belongs to it, also what is split off now."""
    lr: Any
    """Its learning rate; while all of it is held at 0, the one that will return. None if it has none."""
    zeroed: bool
    """Whether handles hold all of it at lr 0."""
    split: tuple[torch.Tensor, ...]
    """What handles have split off from it."""
    split_lr: Any
    """The learning rate of that now: 0, unless someone has changed it. None if nothing is split off."""
    named: bool
    """Whether it keeps the names of its parameters (``param_names``)."""


_owns: Any = WeakIdKeyDictionary()  # optimizer -> list[_Own]


def plan(optimizer: Optimizer, wanted: Sequence[Named]) -> list[Share]:
    """Work out which groups have to change so that the wanted parameters get lr 0; change nothing yet.

    Raises
    ------
    ValueError
        A parameter is in no group; a group that a scheduler was built on would have to be split; or lr = 0
        does not stop this kind of optimizer.
    """
    for kind, why in _DEAF.items():
        if isinstance(optimizer, kind):
            raise ValueError(
                f"how='lr_zero' does not freeze under {kind.__name__}: {why}. Use how='requires_grad'"
            )
    names = {id(named.tensor): named.name for named in wanted}
    shares = []
    for position, own in _own_groups(optimizer):
        group, extra = own.find(optimizer)
        members = [parameter for parameter, _ in _pairs(group) + _pairs(extra)]
        meant = [parameter for parameter in members if id(parameter) in names]
        if meant:
            named = "param_names" in optimizer.param_groups[position]
            shares.append(Share(own, position, meant, len(meant) == len(members), named))
    grouped = {id(parameter) for share in shares for parameter in share.tensors}
    missing = [name for key, name in names.items() if key not in grouped]
    if missing:
        raise ValueError(
            f"how='lr_zero' needs parameters that the optimizer holds; no group holds {listing(missing)}. "
            "optimizer.add_param_group would add them"
        )
    for share in shares:
        _check(optimizer, share, names)
    return shares


def hold(optimizer: Optimizer, shares: Sequence[Share], token: object) -> None:
    """Bring what `plan` worked out to lr 0, for the handle that `token` stands for."""
    known: list[_Own] = _owns.setdefault(optimizer, [])
    for share in shares:
        if share.own not in known:
            known.append(share.own)
        share.own.held[token] = share.tensors
        _arrange(optimizer, share.own)


def release(optimizer: Optimizer, token: object) -> None:
    """Let go: learning rates and layout return as far as no other handle needs them changed."""
    known: list[_Own] = _owns.get(optimizer, [])
    for own in [own for own in known if token in own.held]:
        del own.held[token]
        _arrange(optimizer, own)
        if not own.held:
            known.remove(own)
    if not known:
        _owns.pop(optimizer, None)


def own_groups(optimizer: Optimizer) -> list[OwnGroup]:
    """Read the optimizer's own groups, in order, as they would be without any `freeze`."""
    found = []
    for _, own in _own_groups(optimizer):
        group, extra = own.find(optimizer)
        assert group is not None  # `_own_groups` found it
        pairs = sorted(_pairs(group) + _pairs(extra), key=_rank(own.order))
        zeroed = own.zeroed and not group["lr"]
        found.append(
            OwnGroup(
                tuple(parameter for parameter, _ in pairs),
                own.lr if zeroed else group.get("lr"),
                zeroed,
                tuple(parameter for parameter, _ in _pairs(extra)),
                extra["lr"] if extra is not None else None,
                "param_names" in group,
            )
        )
    return found


def set_lr(optimizer: Optimizer, index: int, lr: Any) -> None:
    """Set the learning rate of an own group; while all of it is held at 0, the one that will return."""
    own = _own_groups(optimizer)[index][1]
    group = own.find(optimizer)[0]
    assert group is not None
    if own.zeroed and not group["lr"]:
        own.lr = lr
    else:
        group["lr"] = lr


def _own_groups(optimizer: Optimizer) -> list[tuple[int, _Own]]:
    """The optimizer's groups as they are without our splitting, with their places."""
    known: list[_Own] = _owns.get(optimizer, [])
    found = [(own, *own.find(optimizer)) for own in known]
    groups = []
    for position, group in enumerate(optimizer.param_groups):
        if any(group is extra for _, _, extra in found):
            continue
        held = next((own for own, other, _ in found if other is group), None)
        groups.append((position, held or _Own(_Place(group, group["params"]), list(group["params"]))))
    return groups


def _check(optimizer: Optimizer, share: Share, names: dict[int, str]) -> None:
    """Refuse to split (or join again) a group that a scheduler was built on.

    Such a scheduler keeps one base learning rate per group: some raise when the number of groups changes,
    others would wake the new one.
    """
    group = optimizer.param_groups[share.position]
    if "lr" not in group:
        raise ValueError(f"optimizer.param_groups[{share.position}] has no 'lr' that could be 0")
    split = {id(parameter) for parameter, _ in _pairs(share.own.find(optimizer)[1])}
    stays = share.whole if not split else all(id(parameter) in split for parameter in share.tensors)
    if stays or "initial_lr" not in group:
        return
    meant = listing([names[id(parameter)] for parameter in share.tensors])
    raise ValueError(
        f"to give {meant} lr 0, optimizer.param_groups[{share.position}] would have to be split, or joined "
        "again, but a scheduler was built on it (it carries 'initial_lr'). Give the layer its own parameter "
        "group before building the scheduler"
    )


def _arrange(optimizer: Optimizer, own: _Own) -> None:
    """Bring one of the optimizer's own groups to what is held of it now."""
    group, extra = own.find(optimizer)
    held = {id(parameter) for tensors in own.held.values() for parameter in tensors}
    if group is None:  # someone removed it: what was split off from it is a group of its own now
        if extra is not None and not held:
            extra["lr"] = own.lr
        return
    if own.zeroed:
        group["lr"], own.zeroed = own.lr, False
    pairs = sorted(_pairs(group) + _pairs(extra), key=_rank(own.order))
    frozen = [pair for pair in pairs if id(pair[0]) in held]
    if 0 < len(frozen) < len(pairs):
        if extra is None:
            extra = _split_off(optimizer, own, group)
        extra["lr"] = _zero(extra["lr"])
        _fill(group, [pair for pair in pairs if id(pair[0]) not in held])
        _fill(extra, frozen)
        return
    if extra is not None:
        _fill(group, pairs)
        optimizer.param_groups[:] = [other for other in optimizer.param_groups if other is not extra]
    own.split = None
    if frozen:
        own.lr, own.zeroed = group["lr"], True
        group["lr"] = _zero(own.lr)


def _split_off(optimizer: Optimizer, own: _Own, group: _Group) -> _Group:
    """A new last group with the same options, still empty."""
    extra = {**group, "params": []}
    own.lr, own.split = group["lr"], _Place(extra, extra["params"])
    if "param_names" in group:
        extra["param_names"] = []
    optimizer.param_groups.append(extra)
    return extra


def _pairs(group: _Group | None) -> list[tuple[torch.Tensor, str | None]]:
    """The parameters of a group, each with its name where the optimizer knows names."""
    if group is None:
        return []
    return list(zip(group["params"], group.get("param_names") or itertools.repeat(None), strict=False))


def _fill(group: _Group, pairs: list[tuple[torch.Tensor, str | None]]) -> None:
    group["params"][:] = [parameter for parameter, _ in pairs]
    if "param_names" in group:
        group["param_names"][:] = [name for _, name in pairs]


def _rank(order: list[torch.Tensor]) -> Any:
    """Sort key: the place a parameter had; what came later stands last."""
    places = {id(parameter): place for place, parameter in enumerate(order)}
    return lambda pair: places.get(id(pair[0]), len(order))


def _zero(lr: Any) -> Any:
    return torch.zeros_like(lr) if isinstance(lr, torch.Tensor) else 0.0
