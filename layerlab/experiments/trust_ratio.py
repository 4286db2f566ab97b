"""Learning rates that adapt to each layer, as published: LARS and LAMB.

Both scale the step of each tensor by its *trust ratio*, the tensor's own norm over the norm of its update.
How far a tensor moves, measured by its size, then no longer depends on the size of its gradient. The papers
call a tensor a layer: a weight and its bias each have a ratio of their own. They were proposed for training
on very large batches. Written to be read; on a GPU, each norm waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from layerlab.compare import norm

Closure = Callable[[], Any]

_FROM_ZERO: tuple[Callable[[float], bool], str] = (lambda value: value >= 0, "from 0 up")
_BELOW_ONE: tuple[Callable[[float], bool], str] = (lambda value: 0 <= value < 1, "from 0 up, and below 1")
_ABOVE_ZERO: tuple[Callable[[float], bool], str] = (lambda value: value > 0, "above 0")
_RANGES = {
    **dict.fromkeys(("lr", "weight_decay"), _FROM_ZERO),
    **dict.fromkeys(("momentum", "betas[0]", "betas[1]"), _BELOW_ONE),
    **dict.fromkeys(("trust_coefficient", "eps"), _ABOVE_ZERO),
}


def trust_ratio(weight_norm: float, update_norm: float, coefficient: float = 1.0) -> float:
    """How many times larger a tensor is than its update, times the coefficient; 1 where either norm is 0.

    Without that exception a tensor that starts as zeros would never move.
    """
    return coefficient * weight_norm / update_norm if weight_norm and update_norm else 1.0


class _TrustRatio(Optimizer):
    """What the two share: group options are checked, and a tensor without a gradient is skipped."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, once its options are known to be good.

        Raises
        ------
        ValueError, TypeError
            For an option out of its range; then nothing is added.
        """
        _check_options(self.defaults | param_group)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Update every tensor that has a gradient.

        Parameters
        ----------
        closure
            Computes the loss anew and calls ``backward()``; what it returns is returned.

        Raises
        ------
        RuntimeError
            For a sparse gradient or complex numbers; then no tensor has moved.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = list(self._with_gradient())
        for p, grad, _ in moving:
            if grad.is_sparse or p.is_complex():
                kind = "sparse gradients" if grad.is_sparse else "complex numbers"
                raise RuntimeError(f"{type(self).__name__} does not take {kind}: use torch.optim.SGD there")
        for p, grad, group in moving:
            self._update(p, grad, group)
        return loss

    def _with_gradient(self) -> Iterator[tuple[Tensor, Tensor, dict[str, Any]]]:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    yield p, p.grad, group

    def _update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not define _update")


class LARS(_TrustRatio):
    r"""SGD with momentum and layer-wise adaptive rate scaling.

    .. math::
        \lambda &= \eta\,\|w\| / (\|g\| + \beta\,\|w\|) \\
        v &\leftarrow m\,v + \gamma\,\lambda\,(g + \beta\,w) \\
        w &\leftarrow w - v

    Parameters
    ----------
    params
        Parameters, or groups of them, as for every optimizer of torch.
    lr
        γ, the global learning rate. It enters the momentum buffer, as published; in `torch.optim.SGD` it
        multiplies the buffer. That differs only when lr changes on the way.
    momentum
        m.
    weight_decay
        β.
    trust_coefficient
        η. Without momentum and weight decay, γ·η is what ‖Δ‖/‖w‖ is for every tensor.
    adapt
        False: λ is 1, plain SGD. Meant for a group of biases and normalisation layers, whose norms say
        little; give that group a learning rate of its own, for γ is often large.

    Raises
    ------
    ValueError, TypeError
        For an option out of its range, also in a group.

    Notes
    -----
    You, Gitman, Ginsburg: *Large Batch Training of Convolutional Networks*, 2017, arXiv 1708.03888, equation
    6 and Algorithm 1. The paper's schedule of γ is left to a scheduler. Where ‖w‖ or the denominator is 0, of
    which the paper says nothing, λ is 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        adapt: bool = True,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, options | {"trust_coefficient": trust_coefficient, "adapt": adapt})

    def _update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        decay, momentum = group["weight_decay"], group["momentum"]
        rate = group["lr"]
        if group["adapt"]:
            size = norm(p)
            rate *= trust_ratio(size, norm(grad) + decay * size, group["trust_coefficient"])
        step = rate * grad.add(p, alpha=decay)
        if momentum:
            state = self.state[p]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p)
            step = state["momentum_buffer"].mul_(momentum).add_(step)
        p.sub_(step)


class LAMB(_TrustRatio):
    r"""Adam's direction, scaled to the size of each tensor.

    .. math::
        m &\leftarrow \beta_1 m + (1-\beta_1)\,g, \qquad v \leftarrow \beta_2 v + (1-\beta_2)\,g^2 \\
        r &= \frac{m}{1-\beta_1^t} \Big/ \Big(\sqrt{v/(1-\beta_2^t)} + \epsilon\Big) \\
        w &\leftarrow w - \eta\,\frac{\|w\|}{\|r + \lambda w\|}\,(r + \lambda w)

    So lr is what ‖Δ‖/‖w‖ is for every tensor in every step.

    Parameters
    ----------
    params
        Parameters, or groups of them, as for every optimizer of torch.
    lr
        η.
    betas
        β₁ and β₂.
    eps
        ε, above 0.
    weight_decay
        λ, decoupled as in AdamW.
    adapt
        False: the trust ratio is 1, which is AdamW. Meant for a group of biases and normalisation layers.

    Raises
    ------
    ValueError, TypeError
        For an option out of its range, also in a group.

    Notes
    -----
    You et al.: *Large Batch Optimization for Deep Learning: Training BERT in 76 minutes*, ICLR 2020, arXiv
    1904.00962, Algorithm 2, with φ(z) = z. Where ‖w‖ or ‖r + λw‖ is 0, the trust ratio is 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        adapt: bool = True,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": adapt}
        super().__init__(params, options)

    def _update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        (beta1, beta2), state = group["betas"], self.state[p]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        state["step"] += 1
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        corrected_m, corrected_v = m / (1 - beta1 ** state["step"]), v / (1 - beta2 ** state["step"])
        update = corrected_m / (corrected_v.sqrt() + group["eps"])
        update.add_(p, alpha=group["weight_decay"])
        ratio = trust_ratio(norm(p), norm(update)) if group["adapt"] else 1.0
        p.sub_(update, alpha=group["lr"] * ratio)


def _check_options(options: dict[str, Any]) -> None:
    """Raise for the first option that is out of its range; the message says what would be right."""
    betas = options.get("betas", (0.0, 0.0))
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"betas={betas!r}: give two numbers, such as (0.9, 0.999)")
    if not isinstance(options["adapt"], bool):
        raise TypeError(f"adapt={options['adapt']!r}: give True or False")
    for name, value in {**options, "betas[0]": betas[0], "betas[1]": betas[1]}.items():
        if name not in _RANGES:
            continue
        fits, right = _RANGES[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name}={value!r}: give a finite number {right}")
        if not (math.isfinite(value) and fits(value)):
            raise ValueError(f"{name}={value!r}: give a finite number {right}")
