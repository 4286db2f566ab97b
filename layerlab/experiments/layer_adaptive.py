"""A printed optimizer that is to adapt the learning rate of each layer, and a trial for each of its defects.

It stands in section 1.4.2 of “为不同层设置不同学习率” (*Different learning rates for different layers*).
Every trial takes the optimizer to try, so that another one can be put beside the printed one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from layerlab.compare import same_bits

Make = Callable[..., Optimizer]
"""An optimizer's class: called with parameters or groups, and with its settings by name."""


# The document's own text, but for two things: our copy has lost its indentation, and types are added. The
# comments say “adjust the learning rate by the gradient's statistics” and “adjust it dynamically”. The text
# adds that only the learning rate of each layer is written here, not the optimizing; but step() replaces all
# that Adam does.
# fmt: off
class LayerAdaptiveLR(torch.optim.Adam):
    """As printed. What is wrong with it, the trials below show."""

    def __init__(self, params: Any, lr: float=1e-3, betas: tuple[float, float]=(0.9, 0.999), eps: float=1e-8,
                 weight_decay: float=0) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
        self.param_groups = sorted(self.param_groups, key=lambda x: id(x['params'][0]))

    def step(self, closure: Any=None) -> Any:
        """Update every tensor that has a gradient."""
        loss = None
        if closure is not None:
            loss = closure()
        for group in self.param_groups:
            for p in group['params']:
                if p.grad is None:
                    continue
                grad = p.grad.data
                state = self.state[p]
                # 根据梯度统计调整学习率
                if len(state) == 0:
                    state['step'] = 0
                    state['exp_avg'] = torch.zeros_like(p.data)
                    state['exp_avg_sq'] = torch.zeros_like(p.data)
                exp_avg, exp_avg_sq = state['exp_avg'], state['exp_avg_sq']
                beta1, beta2 = group['betas']
                state['step'] += 1
                exp_avg.mul_(beta1).add_(grad, alpha=1 - beta1)
                exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                denom = exp_avg_sq.sqrt().add_(group['eps'])
                # 动态调整学习率
                step_size = group['lr'] * (exp_avg.abs() / denom).mean().item()
                p.data.add_(exp_avg, alpha=-step_size)
        return loss
# fmt: on


@dataclass(frozen=True, slots=True)
class OneScalar:
    """How well a single number explains the step of a whole tensor: Δ = −scalar · momentum buffer."""

    name: str
    scalar: float
    """The number that fits best, by least squares."""
    unexplained: float
    """What it leaves over, as a share of ‖Δ‖: 0 when all elements are multiplied by the same number."""


def one_scalar(
    optimizer: Optimizer, before: Iterable[Tensor], named: Iterable[tuple[str, Tensor]]
) -> list[OneScalar]:
    """Fit the step that an optimizer with Adam's state has just taken by one number for each tensor.

    Parameters
    ----------
    before
        Copies of the tensors from before the step.
    named
        The tensors now, with their names.

    Raises
    ------
    KeyError
        If the optimizer stores no ``exp_avg`` of a tensor.
    """
    found = []
    for (name, p), was in zip(named, before, strict=True):
        delta, m = (p.detach() - was).double().flatten(), optimizer.state[p]["exp_avg"].double().flatten()
        scalar = -float(delta @ m / (m @ m))
        left = float(torch.linalg.vector_norm(delta + scalar * m) / torch.linalg.vector_norm(delta))
        found.append(OneScalar(name, scalar, left))
    return found


def constant_gradient(make: Make, steps: int, gradient: float = 1.0, **settings: Any) -> list[float]:
    """Feed the same gradient again and again to a single weight.

    Parameters
    ----------
    make, settings
        The optimizer; lr is 1 unless set.
    steps
        How many.
    gradient
        The gradient in each.

    Returns
    -------
    list of float
        How far each step went down the gradient, in units of lr. It starts from a weight of 0, in double
        precision, where no step is too small to show.
    """
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = make([p], **{"lr": 1.0, **settings})
    lr, moves = optimizer.param_groups[0]["lr"], []
    for _ in range(steps):
        with torch.no_grad():
            p.zero_()
        p.grad = torch.full_like(p, gradient)
        optimizer.step()
        moves.append(-p.item() / lr)
    return moves


def factors(moves: Sequence[float], beta1: float = 0.9) -> list[float]:
    """Divide the steps of `constant_gradient` (of gradient 1) by the momentum buffer that they multiply.

    That buffer is 1 − β₁ᵗ after t steps, for it starts at 0.
    """
    return [move / (1 - beta1**t) for t, move in enumerate(moves, start=1)]


def same_with_weight_decay(make: Make, weight_decay: float, steps: int = 3) -> bool:
    """Whether training is the same, bit for bit, with and without weight decay."""
    ends = []
    for decay in (0.0, weight_decay):
        p = nn.Parameter(torch.linspace(-1, 1, 12))
        optimizer = make([p], lr=0.1, weight_decay=decay)
        for _ in range(steps):
            optimizer.zero_grad()
            (p.cos() * torch.arange(12.0)).sum().backward()
            optimizer.step()
        ends.append(p.detach())
    return same_bits(*ends)


def group_orders(make: Make, networks: int = 30, layers: int = 5) -> list[tuple[int, ...]]:
    """Build networks alike, give each to an optimizer with a group a layer, and read the groups' order.

    Returns
    -------
    list of tuple of int
        For each network, which layer each of the optimizer's groups holds. In order would be (0, 1, 2 …).
        What an optimizer gives that sorts by ``id`` differs from process to process.
    """
    kept, orders = [], []
    for _ in range(networks):
        net = [nn.Parameter(torch.zeros(1)) for _ in range(layers)]
        kept.append(net)  # or all would lie at the same addresses, one after another
        optimizer = make([{"params": [p]} for p in net])
        place = {id(p): layer for layer, p in enumerate(net)}
        orders.append(tuple(place[id(group["params"][0])] for group in optimizer.param_groups))
    return orders


def empty_group_error(make: Make) -> str:
    """Say what an optimizer raises when its first group is empty, as that of a filtered-out part may be.

    Returns
    -------
    str
        The exception's type and message; empty if it takes the group, as torch's own optimizers do.
    """
    try:
        make([{"params": []}, {"params": [nn.Parameter(torch.zeros(1))]}])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Whose stored state and learning rate a layer has after ``load_state_dict``."""

    layer: str
    state_of: str
    lr_of: str


def load_elsewhere(make: Make, layers: int = 3) -> list[Loaded]:
    """Save an optimizer's state, and load it for the same network at other places in memory.

    The places are chosen, not left to chance: the first network's layers lie in ascending order, the second
    one's in descending order. In another process either may happen.
    """
    names = [f"layer{n + 1}" for n in range(layers)]
    free = sorted((nn.Parameter(torch.zeros(1)) for _ in range(2 * layers)), key=id)
    here = dict(zip(names, free[:layers], strict=True))
    there = dict(zip(names, reversed(free[layers:]), strict=True))
    saved = _optimizer(make, here)
    for number, p in enumerate(here.values(), start=1):
        p.grad = torch.full_like(p, float(number))  # so that its trace in exp_avg tells which layer it was
    saved.step()
    loaded = _optimizer(make, there)
    loaded.load_state_dict(saved.state_dict())
    found = []
    trace = {round(saved.state[p]["exp_avg"].item(), 6): name for name, p in here.items()}
    own_lr = {_lr_of(saved, p): name for name, p in here.items()}
    for name, p in there.items():
        state_of = trace[round(loaded.state[p]["exp_avg"].item(), 6)]
        found.append(Loaded(name, state_of, own_lr[_lr_of(loaded, p)]))
    return found


def _optimizer(make: Make, net: dict[str, nn.Parameter]) -> Optimizer:
    """A group for each layer, each with a learning rate of its own."""
    return make([{"params": [p], "lr": 10.0**-number} for number, p in enumerate(net.values(), start=1)])


def _lr_of(optimizer: Optimizer, p: Tensor) -> float:
    return float(next(g["lr"] for g in optimizer.param_groups if any(one is p for one in g["params"])))
