"""The check of lesson 02's exercise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from layerlab.experiments.two_tasks import Network, article_batch
from layerlab.ledger import Ledger, watch
from layerlab.lessons_support.checks import Check
from layerlab.lessons_support.verdict import Verdict, all_of

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "SGD, momentum 0.9": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "AdamW": partial(torch.optim.AdamW, lr=0.1),
}
LAYER, SHARED = "hidden_task1.weight", "output.weight"

Pause = Callable[[nn.Parameter], object]
Resume = Callable[[nn.Parameter, Optimizer], object]


def check_pause(pause: Pause, resume: Resume) -> Verdict:
    """Train hidden_task1, pause it while both tasks train, resume it; under several optimizers.

    The steps: 0 to 2 on task 1; 3 on task 1 and 4 on task 2 with hidden_task1 paused; 5 on task 1 again,
    resumed, its inputs with the other sign. So ``.grad`` holds a gradient in step 3, and, if `pause` left a
    tensor there, zeros in step 4.

    Parameters
    ----------
    pause
        Called with hidden_task1's weight in steps 3 and 4, between ``backward()`` and ``step()``.
    resume
        Called with it and the optimizer before the ``zero_grad()`` of step 5.

    Returns
    -------
    Verdict
        Of the first optimizer with which something is wrong; else one line for each.
    """
    verdicts = ((f"with {name}", _with(name, make, pause, resume)) for name, make in OPTIMIZERS.items())
    return all_of("hidden_task1 pauses, and resumes without its old momentum", verdicts)


def _with(name: str, make: Callable[..., Optimizer], pause: Pause, resume: Resume) -> Verdict:
    called = {f"model.{LAYER}": "p", "model": "net"}
    check = Check(f"with {name} (steps 3 and 4 paused, step 5 resumed)", called=called)
    with torch.random.fork_rng(devices=[]):  # a new network draws random weights first
        net = Network.from_article()
    optimizer = make(net.parameters())
    layer = net.hidden_task1.weight
    with watch(net, optimizer, explain="all") as ledger:
        for _ in range(3):
            _backward(net, optimizer, "task1")
            optimizer.step()
        for task in ("task1", "task2"):
            _backward(net, optimizer, task)
            check.run(pause, layer)
            optimizer.step()
        check.run(resume, layer, optimizer)
        _backward(net, optimizer, "task1", sign=-1)
        optimizer.step()
    once = "pause and resume must not call optimizer.step(): the loop does"
    check.that(lambda: len(ledger) == 6, "the loop took its six steps", once)
    if len(ledger) != 6:
        return check.verdict()
    check.stayed(ledger[3:5], LAYER, label="steps 3 and 4")
    check.moved(ledger[3:5], SHARED, label="steps 3 and 4")
    check.that(
        lambda: layer.requires_grad,
        f"{LAYER} requires gradients again",
        f"requires_grad of {LAYER} is still False after resume, so step 5 has no gradient for it: "
        "p.requires_grad = True",
    )
    check.moved(ledger, LAYER, at=5, label="step 5")
    check.that(
        lambda: _old_momentum(ledger, LAYER) == 0,
        f"no old momentum moves {LAYER} in step 5",
        f"{LAYER} resumes with its old momentum: the optimizer kept its state through the pause. "
        "Take it away in resume: optimizer.state.pop(p, None)",
    )
    check.that(
        lambda: _old_momentum(ledger, SHARED) > 0,
        f"{SHARED} keeps its momentum",
        f"{SHARED} must keep its momentum, but has lost it: take away the state of p alone, "
        "optimizer.state.pop(p, None)",
    )
    return check.verdict()


def _backward(net: nn.Module, optimizer: Optimizer, task: str, sign: int = 1) -> None:
    """What the exercise's loop does before each step; zeros, as torch before 2.0 left them."""
    inputs, targets = article_batch()[task]
    optimizer.zero_grad(set_to_none=False)
    cross_entropy(net(sign * inputs, task), targets).backward()


def _old_momentum(ledger: Ledger, name: str) -> float:
    """Size of what stored state alone did to a tensor in the last step."""
    parts = ledger[-1][name].parts
    return parts.momentum if parts else 0.0
