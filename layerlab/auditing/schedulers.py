"""How schedulers and optimizers are put together: whose they are, and which groups they know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.optim import Optimizer
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

from layerlab.auditing.finding import Finding
from layerlab.auditing.rates import leaves, rebuilt_scheduler
from layerlab.auditing.scene import Scene, optimizer_of
from layerlab.show.words import plural

_BY_GROUP = (
    lrs.LambdaLR,
    lrs.CyclicLR,
    lrs.CosineAnnealingWarmRestarts,
    lrs.OneCycleLR,
    SWALR,
    lrs.MultiplicativeLR,
)
"""They keep a number or a function for each group: step() of torch's fails when groups come or go."""


def bound_elsewhere(scene: Scene) -> Iterator[Finding]:
    """A scheduler that sets the learning rates of an optimizer that nobody audits."""
    if not scene.optimizers:
        return
    for scheduler in scene.schedulers:
        optimizer = optimizer_of(scheduler)
        if any(optimizer is one for one in scene.optimizers):
            continue
        last = len(scene.optimizers) - 1
        yield scene.finding(
            "scheduler-elsewhere", [scene.scheduler(scheduler)],
            f"it ({type(scheduler).__name__}) was built on another optimizer than "
            f"{' or '.join(map(scene.optimizer, range(last + 1)))}, one from before a rebuild, perhaps: its "
            "step() changes the learning rates of that one, and these stay as they are",
            rebuilt_scheduler(scene, scheduler, last),
        )  # fmt: skip


def groups_came_later(scene: Scene) -> Iterator[Finding]:
    """Groups that were added to (or taken from) an optimizer after its scheduler was built."""
    for i, optimizer in enumerate(scene.optimizers):
        for outer in scene.schedulers_of(i):
            for scheduler in leaves([outer]):
                yield from _came_later(scene, i, optimizer, outer, scheduler)


def _came_later(scene: Scene, i: int, optimizer: Optimizer, outer: Any, scheduler: Any) -> Iterator[Finding]:
    known = len(getattr(scheduler, "base_lrs", None) or getattr(scheduler, "min_lrs", None) or ())
    now, kind = len(optimizer.param_groups), type(scheduler).__name__
    plateau = isinstance(scheduler, lrs.ReduceLROnPlateau)
    if known in (0, now):
        return
    places = [scene.group(i, j) for j in range(known, now)] or [scene.optimizer(i)]
    what = f"{kind} was built when {scene.optimizer(i)} had {plural(known, 'group')}, and it has {now} now"
    cure = rebuilt_scheduler(scene, outer, i)
    fails_on_lists = plateau and getattr(scheduler, "default_min_lr", 0) is None
    if isinstance(scheduler, _BY_GROUP) or fails_on_lists:
        effect = f"{what}: its step() raises, or (in older versions of torch) passes the new group over"
        yield scene.finding("group-after-scheduler", places, effect, cure)
    elif now > known and isinstance(scheduler, (lrs.LinearLR, lrs.ConstantLR)):
        first = scheduler.start_factor if isinstance(scheduler, lrs.LinearLR) else scheduler.factor
        last = scheduler.end_factor if isinstance(scheduler, lrs.LinearLR) else 1.0
        if scheduler.last_epoch < scheduler.total_iters and first != last:
            effect = (
                f"{what}: it multiplies every group's lr on its way from {first:.3g} to {last:.3g} times, "
                "but never brought the new group to the start of that way, so its lr ends elsewhere than it "
                "was set"
            )
            yield scene.finding("group-after-scheduler", places, effect, cure, level="warning")
    elif isinstance(scheduler, lrs.CosineAnnealingLR):
        effect = (
            f"{what}: it goes on with it up to T_max = {scheduler.T_max}; a step() later it raises, or (in "
            "older versions of torch) sets no more than the groups it knew"
        )
        yield scene.finding("group-after-scheduler", places, effect, cure, level="note")


def plateau_metric(scene: Scene) -> Iterator[Finding]:
    """ReduceLROnPlateau, not yet stepped: the one scheduler whose step() takes an argument that matters."""
    for i in range(len(scene.optimizers)):
        for scheduler in scene.schedulers_of(i):
            if isinstance(scheduler, lrs.ReduceLROnPlateau) and scheduler.last_epoch == 0:
                variable = scene.scheduler(scheduler)
                word = "larger" if scheduler.mode == "max" else "smaller"
                yield scene.finding(
                    "plateau-needs-metric", [variable],
                    f"step() of ReduceLROnPlateau without the metric is a TypeError; mode={scheduler.mode!r} "
                    f"takes {word} for better",
                    f"{variable}.step(validation_loss)  # what you watch, after every evaluation",
                )  # fmt: skip


def not_stepped(scene: Scene) -> Iterator[Finding]:
    """The optimizer has stepped, and the scheduler never did."""
    for i, optimizer in enumerate(scene.optimizers):
        for scheduler in scene.schedulers_of(i):
            inner = list(leaves([scheduler]))
            plateau = any(isinstance(s, lrs.ReduceLROnPlateau) for s in inner)
            if plateau or getattr(scheduler, "last_epoch", 1) != 0 or not _has_stepped(optimizer):
                continue
            variable, kind = scene.scheduler(scheduler), type(scheduler).__name__
            yield scene.finding(
                "scheduler-not-stepped", [variable],
                f"{scene.optimizer(i)} has taken steps, and {variable} ({kind}) none since it was built: "
                "lr stays where the schedule starts. Right if it was built just now, or within the first "
                "epoch of a schedule that goes by epochs",
                f"{variable}.step()  # after every epoch (or every step, if it counts steps)",
            )  # fmt: skip


def _has_stepped(optimizer: Optimizer) -> bool:
    # A scheduler wraps its optimizer's step() to leave this mark.
    return bool(getattr(optimizer, "_opt_called", False))


RULES = (bound_elsewhere, groups_came_later, plateau_metric, not_stepped)
