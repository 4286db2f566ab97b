"""What is wrong with a model, its optimizers and its schedulers, before training.

`audit` is the front door. The rules stand in a file for each topic: ``membership`` (which optimizer holds
what), ``options`` (of its groups), ``flags``, ``frozen`` (gradients and state of what is frozen), ``modes``
(train and eval mode, and where the frozen part lies), ``output`` (the model's end and the loss), ``rates``
and ``schedulers``,
``values`` (inf and NaN), ``wrapped`` (DistributedDataParallel), ``trial`` (a forward pass on a given batch).
What each code means stands in `layerlab.auditing.finding.CODES`; `codes` shows it as a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from torch import nn
from torch.optim import Optimizer

from layerlab.auditing import (
    flags,
    frozen,
    membership,
    modes,
    options,
    output,
    rates,
    schedulers,
    values,
    wrapped,
)
from layerlab.auditing.finding import CODES, Finding, Level
from layerlab.auditing.report import Audit
from layerlab.auditing.scene import Scene
from layerlab.auditing.trial import findings_on
from layerlab.show import Shown, table
from layerlab.show.words import plural
from layerlab.wrappers import inside

__all__ = ["CODES", "Audit", "Finding", "Level", "audit", "codes"]

RULES = tuple(
    chain.from_iterable(
        topic.RULES
        for topic in (membership, options, flags, values, frozen, modes, output, rates, schedulers, wrapped)
    )
)
_NOTHING = object()  # told apart from None, which a model might take


def audit(
    model: nn.Module,
    *optimizers: Any,
    scheduler: Any = None,
    loss: Callable[..., Any] | None = None,
    batch: Any = _NOTHING,
) -> Audit:
    """Look for what is wrong with a model, its optimizers and schedulers, before (or between) training.

    Nothing is changed: no value, flag, gradient, state, mode, hook or random state. Without a `batch`
    the model is not run; where a frozen parameter has a gradient, the optimizer's step is replayed on clones.

    Parameters
    ----------
    model
        Any module, wrapped (DistributedDataParallel, torch.compile) or not.
    *optimizers
        The optimizers that train it: all of them, for what no given one holds counts as left out.
        Schedulers may stand among them; None is passed over.
    scheduler
        A learning-rate scheduler, or a list of these.
    loss
        The loss function, or its module: the module that the model ends in is compared with it (with a
        `batch` its output, too), and parameters of its own may be in an optimizer.
    batch
        An input: a tensor, a tuple of positional arguments, or a dict of keyword arguments. A copy of the
        model runs forward and backward on a copy of it, in the mode that the model is in. Forward hooks that
        are plain functions do not run in that copy, for they could write to anything.

    Returns
    -------
    Audit
        The findings, the gravest first; empty when nothing was found.

    Raises
    ------
    TypeError
        An argument is of the wrong kind.
    ValueError
        A scheduler is given without an optimizer; the model cannot be copied, or it raises on the batch.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if loss is not None and not callable(loss):
        raise TypeError(f"loss must be a function or a module, not {type(loss).__name__}")
    optimizers = tuple(one for one in optimizers if one is not None)  # as in audit(*make())
    several = list(scheduler) if isinstance(scheduler, (list, tuple)) else [scheduler]
    given = [*optimizers, *(one for one in several if one is not None)]
    stepping = _each_once([inside(one) for one in optimizers if isinstance(one, Optimizer)])
    scheduling = _each_once([one for one in given if not isinstance(one, Optimizer)])
    for one in several:
        if isinstance(one, Optimizer):
            raise TypeError("scheduler is an optimizer: give optimizers after the model, by position")
    for one in scheduling:
        if not _is_scheduler(one):
            kind = type(one).__name__
            hint = "; several optimizers are given one by one, audit(model, *optimizers)"
            raise TypeError(
                f"a {kind} is neither an optimizer nor a scheduler"
                + (hint if isinstance(one, (list, tuple, dict)) else "")
            )
    if scheduling and not stepping:
        kind = type(scheduling[0]).__name__
        raise ValueError(f"a {kind} was given, and no optimizer: audit(model, optimizer, scheduler)")
    scene = Scene(model, stepping, scheduling, loss)
    found = [finding for rule in RULES for finding in rule(scene)]
    if batch is not _NOTHING:
        found += findings_on(scene, batch)
    return Audit(found, _looked_at(scene))


def _each_once(things: Sequence[Any]) -> list[Any]:
    return list({id(thing): thing for thing in things}.values())


def _is_scheduler(thing: Any) -> bool:
    # Older torch keeps ChainedScheduler without an optimizer of its own.
    return hasattr(thing, "step") and (hasattr(thing, "optimizer") or hasattr(thing, "_schedulers"))


def _looked_at(scene: Scene) -> str:
    train = sum(named.tensor.requires_grad for named in scene.parameters)
    parts = [
        f"{type(scene.bare).__name__} ({train} of {plural(len(scene.parameters), 'parameter')} trainable)"
    ]
    parts += [type(one).__name__ for one in (*scene.optimizers, *scene.schedulers)]
    parts += [] if scene.optimizers else ["no optimizer given: who trains what was not looked at"]
    return ", ".join(parts)


def codes() -> Shown:
    """Show the table of all codes: their usual level, and what each means."""
    rows = [{"code": code, "level": level, "means": means} for code, (level, means) in CODES.items()]
    return table(rows, title="what an audit may find")
