"""Which update rule produced the article's numbers? Evidence that needs none of its unknown inputs.

``exp_avg`` and ``exp_avg_sq`` are averages of the gradients and of their squares, so the gradients can be
read back from the printed optimizer states. With them, an update rule written out by hand in float64 must
give back every number the article prints, as far as the rounding of the print allows.

A printed number such as 0.8957 stands for the interval [0.89565, 0.89575]. The initial values and the
gradients are such intervals; the rule is run on the lowest, middle and highest point of each. A printed
number counts as *explained* when its interval meets the range of the outcomes. No other tolerance is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from layerlab.experiments.article import MOMENTS, PrintedState, Rows, last_place, numbers, printed

LR, BETA1, BETA2, EPS = 0.9, 0.9, 0.999, 1e-8
"""The article's learning rate; the other three are Adam's and AdamW's defaults."""

RUNS = ("adam", "fix")
NAMES = ("hidden_task1.weight", "hidden_task2.weight", "output.weight")


@dataclass(frozen=True, slots=True)
class Explained:
    """How many of the printed numbers a rule explains."""

    parameters: int
    parameters_total: int
    states: int
    states_total: int

    @property
    def explained(self) -> int:
        """Parameters and states together."""
        return self.parameters + self.states

    @property
    def total(self) -> int:
        """How many printed numbers were compared."""
        return self.parameters_total + self.states_total


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient that one step's optimizer state saw: an interval for each element."""

    low: Tensor
    high: Tensor
    zero_tensor: bool = False
    """The loss did not depend on this parameter: the gradient was a tensor of zeros, nothing is recovered."""

    @property
    def points(self) -> Tensor:
        """Lowest, middle and highest gradient, stacked."""
        return torch.stack([self.low, (self.low + self.high) / 2, self.high])


def _interval(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest matrix that prints like `rows`."""
    half = torch.tensor([[last_place(text) / 2 for text in row] for row in rows], dtype=torch.float64)
    return numbers(rows) - half, numbers(rows) + half


def recover_gradient(before: PrintedState | None, after: PrintedState) -> Gradient:
    """Return the gradient that took the state `before` (None: no state yet) to the state `after`.

    It is what both averages allow: ``g = (exp_avg − β1·exp_avg_before) / (1 − β1)`` gives the sign, and
    ``g² = (exp_avg_sq − β2·exp_avg_sq_before) / (1 − β2)`` is mostly finer.
    """
    m_low, m_high = _interval(after.exp_avg)
    v_low, v_high = _interval(after.exp_avg_sq)
    zeros = torch.zeros_like(m_low)
    m0_low, m0_high = _interval(before.exp_avg) if before else (zeros, zeros)
    v0_low, v0_high = _interval(before.exp_avg_sq) if before else (zeros, zeros)

    low, high = (m_low - BETA1 * m0_high) / (1 - BETA1), (m_high - BETA1 * m0_low) / (1 - BETA1)
    size_low = ((v_low - BETA2 * v0_high) / (1 - BETA2)).clamp(min=0).sqrt()
    size_high = ((v_high - BETA2 * v0_low) / (1 - BETA2)).clamp(min=0).sqrt()
    return Gradient(
        torch.maximum(low, torch.where(low > 0, size_low, -size_high)),
        torch.minimum(high, torch.where(high < 0, -size_low, size_high)),
    )


def _gradients(run: str, name: str) -> Iterator[tuple[str, Gradient | None]]:
    """Yield, for both tasks, the moment after the step and its gradient; None: ``step()`` skipped it."""
    states = printed()
    # The fix prints no state after task 1; its first step is the naive run's.
    first = states["adam"].states["after task 1"].get(name)
    yield "after task 1", recover_gradient(None, first) if first else None
    if name != "hidden_task1.weight":
        yield "after task 2", recover_gradient(first, states[run].states["after task 2"][name])
    elif run == "adam":  # task 2 does not use hidden_task1, and zero_grad() left zeros
        zeros = torch.zeros(3, 3, dtype=torch.float64)
        yield "after task 2", Gradient(zeros, zeros, zero_tensor=True)
    else:  # the fix: grad = None
        yield "after task 2", None


def _average(m: Tensor, v: Tensor, g: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return exp_avg, exp_avg_sq and Adam's update (per unit of lr) after one more gradient."""
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g**2
    return m, v, (m / (1 - BETA1**step)) / ((v / (1 - BETA2**step)).sqrt() + EPS)


def replay_from_state(*, decoupled: float = 0.0, l2: float = 0.0) -> Explained:
    """Replay the article's "Adam" run and its fix from the printed initial values and recovered gradients.

    ``p ← p − lr·(m̂ / (√v̂ + ε) + decoupled·p)``: Adam has ``decoupled=0``, AdamW by default .01.

    What is counted, over the two runs: the parameter tables after task 1 and after task 2 (4 × 27 = 108) and
    every printed value of exp_avg and exp_avg_sq (150), together 258. The 27 initial values are not counted
    (they are put in; with them it would be 285), nor the parameter values repeated beside the states.

    Parameters
    ----------
    decoupled
        AdamW's weight decay.
    l2
        ``Adam(weight_decay=)``: l2·p is added to the gradient *before* it is averaged, so the recovered
        gradient already contains it. It shows only where the gradient is known without the states: in
        the step that hands hidden_task1 a tensor of zeros, the optimizer would have seen l2·p.
    """
    hits = {"parameters": [0, 0], "states": [0, 0]}

    def count(kind: str, rows: Rows, outcomes: Tensor) -> None:
        low, high = _interval(rows)
        explained = (outcomes.amin(dim=(0, 1, 2)) <= high) & (outcomes.amax(dim=(0, 1, 2)) >= low)
        hits[kind][0] += int(explained.sum())
        hits[kind][1] += explained.numel()

    for run in RUNS:
        for name in NAMES:
            article = printed()[run]
            low, high = _interval(article.tables["initial"][name])
            # One leading dimension for each unknown: the initial value, the first and the second gradient.
            p = torch.stack([low, (low + high) / 2, high]).reshape(3, 1, 1, *low.shape)
            m = v = torch.zeros_like(p)
            step = 0
            for moment, gradient in _gradients(run, name):
                if gradient is not None:
                    step += 1
                    along = (1, 3, 1) if moment == "after task 1" else (1, 1, 3)
                    seen = l2 * p if gradient.zero_tensor else gradient.points.reshape(*along, *low.shape)
                    m, v, update = _average(m, v, seen, step)
                    p = p - LR * (update + decoupled * p)
                count("parameters", article.tables[moment][name], p)
                state = article.states.get(moment, {}).get(name)
                if state:
                    count("states", state.exp_avg, m)
                    count("states", state.exp_avg_sq, v)
    return Explained(*hits["parameters"], *hits["states"])


def fitted_weight_decay() -> float:
    """Return the decoupled weight decay that fits the printed tables best, by least squares.

    What a step's Adam update leaves unexplained, ``p_before − lr·update − p_after``, is ``lr·decay·p_before``
    if the rule is AdamW's. Both steps of both runs are used, at the middle of each interval.
    """
    x, y = [], []
    for run in RUNS:
        for name in NAMES:
            tables = printed()[run].tables
            step, m, v = 0, torch.tensor(0.0), torch.tensor(0.0)
            for moment, gradient in _gradients(run, name):
                if gradient is None:
                    continue
                step += 1
                m, v, update = _average(m, v, gradient.points[1], step)
                before = numbers(tables[MOMENTS[MOMENTS.index(moment) - 1]][name])
                x.append((LR * before).flatten())
                y.append((before - LR * update - numbers(tables[moment][name])).flatten())
    decay, residual = torch.cat(x), torch.cat(y)
    return float(decay @ residual / (decay @ decay))
