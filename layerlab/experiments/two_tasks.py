"""The article's experiment: one network, two tasks, and a layer that should stay while the other task trains.

The engine of lessons 01 and 02. What the article printed is in `layerlab.experiments.article`; evidence that
does without its unknown inputs is in `layerlab.experiments.article.recovered`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from layerlab.experiments.article import (
    MOMENTS,
    Agreement,
    Batch,
    agreement,
    article_batch,
    last_place,
    numbers,
    printed,
)
from layerlab.experiments.article.recovered import fitted_weight_decay, replay_from_state
from layerlab.experiments.configurations import (
    CONFIGURATIONS,
    IMPLEMENTATIONS,
    NOT_COMPARED,
    Configuration,
)
from layerlab.training.machine import Chance

__all__ = [
    "CONFIGURATIONS",
    "IMPLEMENTATIONS",
    "NOT_COMPARED",
    "Configuration",
    "Network",
    "Run",
    "agreement",
    "article_batch",
    "fitted_weight_decay",
    "last_place",
    "movement_table",
    "printed",
    "random_problem",
    "replay",
    "replay_from_state",
    "run_agreement",
    "task_step",
    "which_optimizer",
]

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class Network(nn.Module):
    """The article's network: a hidden layer for each task, one output layer for both.

    Parameters
    ----------
    softmax
        Whether it ends in a softmax, as the article's does. `torch.nn.CrossEntropyLoss` applies its own, so
        ``False`` is what a classifier should have.
    """

    def __init__(self, softmax: bool = True) -> None:
        super().__init__()
        self.hidden_task1 = nn.Linear(3, 3, bias=False)
        self.hidden_task2 = nn.Linear(2, 3, bias=False)
        self.output = nn.Linear(3, 4, bias=False)
        self.sigmoid = nn.Sigmoid()
        self.softmax = nn.Softmax(dim=1) if softmax else nn.Identity()

    @classmethod
    def from_article(cls, softmax: bool = True) -> Network:
        """Return a network with the initial weights that the article printed (4 decimals)."""
        net = cls(softmax)
        initial = printed()["sgd"].tables["initial"]
        net.load_state_dict({name: numbers(rows) for name, rows in initial.items()})
        return net

    def forward(self, x: Tensor, task: str = "task1") -> Tensor:
        """Return 4 class scores for each example: probabilities if the network has its softmax."""
        x = self.hidden_task1(x) if task == "task1" else self.hidden_task2(x)
        x = self.sigmoid(x)
        x = self.output(x)
        x = self.softmax(x)
        return x


def random_problem(seed: int, softmax: bool = True) -> tuple[Network, Batch]:
    """Return another network and batch, drawn in the order of the article's listing.

    The caller's random state stays as it was.
    """
    with Chance(seed):
        input1, input2 = torch.randn(10, 3), torch.randn(10, 2)
        target1, target2 = torch.randint(0, 4, (10,)), torch.randint(0, 4, (10,))
        return Network(softmax), {"task1": (input1, target1), "task2": (input2, target2)}


def task_step(
    net: nn.Module,
    optimizer: Optimizer,
    task: str,
    *,
    batch: Batch | None = None,
    set_to_none: bool = True,
    grad_none: Sequence[str] = (),
) -> float:
    """Train `net` on `task` for one step and return the loss before it.

    Parameters
    ----------
    task
        ``"task1"`` or ``"task2"``.
    batch
        What to train on; by default `article_batch`.
    set_to_none
        What ``zero_grad()`` leaves: None (the default since torch 2.0) or zeros (before).
    grad_none
        Names of parameters whose ``grad`` is set to None after ``backward()``: the article's fix.

    Raises
    ------
    ValueError
        If `task` or a name in `grad_none` does not exist.
    """
    batch = article_batch() if batch is None else batch
    if task not in batch:
        raise ValueError(f"there is no task {task!r}; the tasks are {', '.join(batch)}")
    parameters = dict(net.named_parameters())
    if unknown := [name for name in grad_none if name not in parameters]:
        raise ValueError(f"grad_none names no parameter: {unknown}; the parameters are {list(parameters)}")
    inputs, targets = batch[task]

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=set_to_none)
        loss = functional.cross_entropy(net(inputs, task), targets)
        loss.backward()
        for name in grad_none:
            parameters[name].grad = None
        return loss.detach()

    if isinstance(optimizer, torch.optim.LBFGS):  # it wants to evaluate the loss several times in a step
        return float(optimizer.step(closure))
    loss = closure()
    optimizer.step()
    return loss.item()


@dataclass(slots=True)
class Run:
    """What one run of the two steps left behind. The outer keys are the moments that the article prints."""

    parameters: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    states: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """The optimizer states by parameter name; a parameter that has none is left out."""

    @property
    def step_counts(self) -> list[int]:
        """The optimizer's own step counts [hidden_task1, hidden_task2, output] after task 2; 0: no state."""
        last = self.states[MOMENTS[-1]]
        return [int(last.get(name, {}).get("step", 0)) for name in self.parameters[MOMENTS[-1]]]

    def note(self, moment: str, net: nn.Module, optimizer: Optimizer) -> None:
        """Keep a copy of the parameters and of the optimizer's state."""
        self.parameters[moment] = {name: p.detach().clone() for name, p in net.named_parameters()}
        self.states[moment] = {
            name: {k: v.clone() if isinstance(v, Tensor) else v for k, v in optimizer.state[p].items()}
            for name, p in net.named_parameters()
            if optimizer.state.get(p)
        }


def replay(
    make_optimizer: MakeOptimizer, *, set_to_none: bool = False, fix: bool = False, softmax: bool = True
) -> Run:
    """Run the article's two steps, from its printed initial weights: first task 1, then task 2.

    Parameters
    ----------
    make_optimizer
        Given the parameters, returns the optimizer: ``lambda p: torch.optim.SGD(p, lr=0.9)``.
    set_to_none
        What ``zero_grad()`` leaves: the article's numbers need zeros, as torch before 2.0 left them.
    fix
        False: the article's first listing, which toggles ``requires_grad``. True: what its second listing
        means, ``grad = None`` for the layer of the other task, between ``backward()`` and ``step()``.
    softmax
        Whether the network ends in a softmax, as the article's does.
    """
    net = Network.from_article(softmax)
    optimizer = make_optimizer(net.parameters())
    run = Run()
    run.note("initial", net, optimizer)

    net.hidden_task2.weight.requires_grad = fix
    other = ["hidden_task2.weight"] if fix else []
    task_step(net, optimizer, "task1", set_to_none=set_to_none, grad_none=other)
    run.note("after task 1", net, optimizer)

    net.hidden_task2.weight.requires_grad = True  # and hidden_task1's is never set to False
    other = ["hidden_task1.weight"] if fix else []
    task_step(net, optimizer, "task2", set_to_none=set_to_none, grad_none=other)
    run.note("after task 2", net, optimizer)
    return run


def run_agreement(article_run: str, run: Run) -> Agreement:
    """Compare a run with what the article printed of its ``"sgd"``, ``"adam"`` or ``"fix"`` run.

    The tables after task 1 and after task 2 count: 2 × 27 = 54 numbers a run, 162 over the three. The initial
    tables do not: they are what the run started from.
    """
    tables = printed()[article_run].tables
    first, second = (agreement(tables[moment], run.parameters[moment]) for moment in MOMENTS[1:])
    return first + second


def _movement(one: Configuration, lr: float, set_to_none: bool, seed: int | None) -> float:
    net, batch = (Network.from_article(), article_batch()) if seed is None else random_problem(seed)
    optimizer = one.make(net.parameters(), lr)
    task_step(net, optimizer, "task1", batch=batch, set_to_none=set_to_none)
    before = net.hidden_task1.weight.detach().clone()
    task_step(net, optimizer, "task2", batch=batch, set_to_none=set_to_none)
    return (net.hidden_task1.weight.detach() - before).abs().max().item()


def movement_table(
    set_to_none: bool,
    lr: float = 0.1,
    *,
    seed: int | None = None,
    configurations: Iterable[Configuration] = CONFIGURATIONS,
) -> list[dict[str, Any]]:
    """Measure how far hidden_task1 moves in the task-2 step, which does not use it.

    Parameters
    ----------
    set_to_none
        What ``zero_grad()`` leaves: None or a tensor of zeros.
    lr
        Learning rate of every optimizer but Adadelta.
    seed
        None: the article's initial weights and batch. An integer: `random_problem` with that seed.

    Returns
    -------
    list of dict
        ``optimizer``: the configuration's name. ``moved_by``: the largest absolute change of a weight.
        ``error``: why there is none, for an optimizer whose step raised; else None.
    """
    rows = []
    for one in configurations:
        row: dict[str, Any] = {"optimizer": one.name, "moved_by": None, "error": None}
        try:
            row["moved_by"] = _movement(one, lr, set_to_none, seed)
        except Exception as error:  # an optimizer that cannot run must not hide the others: its row says so
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append(row)
    return rows


def which_optimizer(configurations: Iterable[Configuration] = CONFIGURATIONS) -> list[dict[str, Any]]:
    """Count, for each candidate, how many numbers of each printed run it gives back within one last place.

    Each candidate runs the article's two steps at its learning rate .9, naively for ``"sgd"`` and ``"adam"``,
    with ``grad = None`` for ``"fix"``.

    Returns
    -------
    list of dict
        ``optimizer``: the configuration's name. ``sgd``, ``adam``, ``fix``: how many numbers agree, of
        ``of`` = 54. Six agree whatever the optimizer: hidden_task2 after task 1, which none had touched yet.
    """
    rows = []
    for one in configurations:
        row: dict[str, Any] = {"optimizer": one.name}
        for article_run in printed():
            run = replay(partial(one.make, lr=0.9), fix=article_run == "fix")
            found = run_agreement(article_run, run)
            row[article_run] = found.within_last_place
        rows.append(row | {"of": found.total})
    return rows
