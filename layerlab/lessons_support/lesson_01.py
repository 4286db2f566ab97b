"""The check of lesson 01's exercise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from layerlab.experiments.two_tasks import Network, article_batch, task_step
from layerlab.ledger import watch
from layerlab.lessons_support.checks import Check
from layerlab.lessons_support.verdict import Verdict, all_of

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "SGD, momentum 0.9": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "SGD, weight decay 0.01": partial(torch.optim.SGD, lr=0.1, weight_decay=0.01),
    "AdamW": partial(torch.optim.AdamW, lr=0.1),
}


def check_task2_step(task2_step: Callable[[nn.Module, Optimizer, Tensor, Tensor], object]) -> Verdict:
    """Train task 1, then task 2 with the learner's step, then task 1 again, under several optimizers.

    Returns
    -------
    Verdict
        Of the first optimizer with which something is wrong; else one line for each.
    """
    verdicts = ((f"with {name}", _with(name, make, task2_step)) for name, make in OPTIMIZERS.items())
    return all_of("hidden_task1 stays still while task 2 trains", verdicts)


def _with(name: str, make: Callable[..., Optimizer], task2_step: Callable[..., object]) -> Verdict:
    check = Check(f"with {name}", called={"model": "net"})
    inputs, targets = article_batch()["task2"]
    net = Network.from_article()
    optimizer = make(net.parameters())
    with watch(net, optimizer) as ledger:
        task_step(net, optimizer, "task1", set_to_none=False)
        check.run(task2_step, net, optimizer, inputs, targets)
        task_step(net, optimizer, "task1")
    once = "task2_step must call optimizer.step() exactly once"
    check.that(lambda: len(ledger) == 3, "it stepped once", once)
    if len(ledger) == 3:
        check.stayed(ledger, "hidden_task1.weight", at=1, label="your step on task 2")
        check.moved(ledger, "hidden_task2.weight", "output.weight", at=1, label="your step on task 2")
        check.moved(ledger, "hidden_task1.weight", at=2, label="the next step, on task 1")
    return check.verdict()
