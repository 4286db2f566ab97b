"""Parameter groups with a learning rate of 0: what they cost, and what moves them all the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.optim import ASGD, Rprop
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

from layerlab.auditing.finding import Finding
from layerlab.auditing.scene import Scene
from layerlab.group_options import lr_of
from layerlab.remade import remade


def lr_zero_groups(scene: Scene) -> Iterator[Finding]:
    """Trainable parameters at lr 0 that no scheduler put there."""
    for i, optimizer in enumerate(scene.optimizers):
        trained = {
            j: [p for p in group["params"] if p.requires_grad]
            for j, group in enumerate(optimizer.param_groups)
        }
        asleep = [j for j, members in trained.items() if members and scene.zeroed(i, j)]
        if asleep and all(j in asleep for j, members in trained.items() if members):
            groups = [scene.group(i, j) for j in asleep]
            yield scene.finding(
                "lr-zero", groups,
                f"lr is 0 in every group of {scene.optimizer(i)} that trains anything, and no given "
                "scheduler will raise it: its step() moves nothing, unless your loop sets lr",
                "\n".join(f'{scene.optimizer(i)}.param_groups[{j}]["lr"] = 1e-3' for j in asleep),
                level="warning",
            )  # fmt: skip
        else:
            for j in asleep:
                yield from _asleep(scene, i, j, trained[j])


def _asleep(scene: Scene, i: int, j: int, members: list[Tensor]) -> Iterator[Finding]:
    names, where = scene.names(members), scene.group(i, j)
    group = scene.optimizers[i].param_groups[j]
    cure = (
        f'for p in {scene.optimizer(i)}.param_groups[{j}]["params"]: p.requires_grad_(False); p.grad = None'
    )
    if why := _moves_at_zero(scene, i, members):
        yield scene.finding("lr-zero-moves", names, f"lr = 0 ({where}) does not hold it: {why}", cure)
        return
    wakers = [waker for s in scene.schedulers_of(i) if (waker := _waker(s, j, group))]
    if wakers:
        effect = f"held by lr = 0 ({where}), but {' and '.join(wakers)}: it will train"
        yield scene.finding("lr-zero-wakes", names, effect, cure + "  # no scheduler wakes that")
        return
    yield scene.finding(
        "lr-zero", names,
        f"held still by lr = 0 ({where}), at the cost of training it: its gradients are computed and "
        "the optimizer's state for it fills. BatchNorm in train mode moves, clip_grad_norm_ counts it, and "
        "a gradient of inf or NaN gets through (0 times NaN is NaN)" + _strangers(scene, i),
        cure + "  # the same weights, for less",
    )  # fmt: skip


def _strangers(scene: Scene, i: int) -> str:
    """What is not known of a group at lr 0 under schedulers that are not torch's."""
    kinds = [type(s) for s in leaves(scene.schedulers_of(i))]
    names = [kind.__name__ for kind in kinds if not kind.__module__.startswith("torch.")]
    return f". Whether {' or '.join(names)} raises it, an audit cannot tell" if names else ""


def _moves_at_zero(scene: Scene, i: int, members: list[Tensor]) -> str:
    """What moves a group at lr 0, for the optimizers that step by a number of their own; else empty."""
    optimizer = scene.optimizers[i]
    kept = [optimizer.state.get(p, {}) for p in members]
    if isinstance(optimizer, Rprop):
        return "Rprop steps by sizes of its own, at least its smallest step size, and reads lr only once"
    if isinstance(optimizer, ASGD) and any(float(state.get("eta", 0)) != 0 for state in kept):
        return "ASGD steps by the eta in its state, which follows lr one step late"
    return ""


def _waker(scheduler: Any, j: int, group: dict[str, Any]) -> str:
    """Why a scheduler raises the lr of group ``j`` from 0; empty if it does not, or is of an unknown kind."""
    for inner in getattr(scheduler, "_schedulers", ()):
        if why := _waker(inner, j, group):
            return why
    kind = type(scheduler).__name__
    bases = getattr(scheduler, "base_lrs", None) or []
    base = float(bases[j]) if j < len(bases) else 0.0
    if (
        isinstance(scheduler, (lrs.CosineAnnealingLR, lrs.CosineAnnealingWarmRestarts))
        and scheduler.eta_min > 0
    ):
        return f"{kind} takes every group to eta_min = {scheduler.eta_min:g}"
    if isinstance(scheduler, lrs.CyclicLR):
        top = max(base, float(scheduler.max_lrs[j]) if j < len(bases) else 0.0)
        return f"{kind} takes it round up to {top:g}" if top else ""
    if isinstance(scheduler, lrs.OneCycleLR) and group.get("max_lr"):
        return f"{kind} takes it up to max_lr = {float(group['max_lr']):g}"
    if isinstance(scheduler, SWALR) and group.get("swa_lr"):
        return f"{kind} takes it to swa_lr = {float(group['swa_lr']):g}"
    if isinstance(scheduler, (lrs.LambdaLR, lrs.CosineAnnealingWarmRestarts)) and base:
        return f"{kind} writes its lr anew in every step, from the {base:g} that it was built with"
    if isinstance(scheduler, lrs.SequentialLR) and any(
        _base(inner, j) for inner in scheduler._schedulers[1:]
    ):
        return f"{kind} starts its next scheduler from the lr that this was built with"
    return ""


def _base(scheduler: Any, j: int) -> float:
    bases = getattr(scheduler, "base_lrs", None) or []
    # Only a scheduler with a closed form is started anew from its base; others go on from where lr is.
    return float(bases[j]) if j < len(bases) and hasattr(scheduler, "_get_closed_form_lr") else 0.0


def floors(scene: Scene) -> Iterator[Finding]:
    """A lowest lr above a group's lr: annealing raises it, ReduceLROnPlateau never reduces it."""
    for i, optimizer in enumerate(scene.optimizers):
        for scheduler in leaves(scene.schedulers_of(i)):
            kind, variable = type(scheduler).__name__, scene.scheduler(scheduler)
            for j, group in enumerate(optimizer.param_groups):
                lr = float(group.get("initial_lr", lr_of(group) or 0))
                if isinstance(scheduler, (lrs.CosineAnnealingLR, lrs.CosineAnnealingWarmRestarts)):
                    if 0 < lr < scheduler.eta_min:
                        yield scene.finding(
                            "eta-min-above-lr", [scene.group(i, j)],
                            f"{kind} takes its lr from {lr:g} up to eta_min = {scheduler.eta_min:g}",
                            f"{variable}.eta_min = {lr / 100:g}",
                        )  # fmt: skip
                elif isinstance(scheduler, lrs.ReduceLROnPlateau) and j < len(scheduler.min_lrs):
                    least = float(scheduler.min_lrs[j])
                    now = lr_of(group) or 0.0
                    # One that is at its lowest lr after some steps has been reduced to it.
                    if 0 < now < least or (0 < now == least and scheduler.last_epoch == 0):
                        yield scene.finding(
                            "min-lr-above-lr", [scene.group(i, j)],
                            f"{kind} never reduces its lr, for {now:g} is not above min_lr = {least:g}",
                            f"{variable}.min_lrs[{j}] = {now / 100:g}",
                        )  # fmt: skip


def leaves(schedulers: list[Any]) -> Iterator[Any]:
    """The schedulers inside combining ones (SequentialLR, ChainedScheduler), and all others."""
    for scheduler in schedulers:
        inner = getattr(scheduler, "_schedulers", None)
        if inner is None:
            yield scheduler
        else:
            yield from leaves(list(inner))


def rebuilt_scheduler(scene: Scene, scheduler: Any, i: int) -> str:
    """The lines that build a scheduler anew on an optimizer whose lr is back at its start."""
    variable = scene.optimizer(i)
    return (
        f'for g in {variable}.param_groups: g["lr"] = g.pop("initial_lr", g["lr"])\n'
        f"{scene.scheduler(scheduler)} = {remade(scheduler, variable, vars(scheduler))}"
    )


RULES = (lr_zero_groups, floors)
