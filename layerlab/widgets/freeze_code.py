"""The state of a model and its optimizer as lines of PyTorch: what is frozen, by whomever, and every lr."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from layerlab.freezing import batchnorm_choice, ways_held
from layerlab.freezing.learning_rates import OwnGroup
from layerlab.freezing.plain_code import bracketed, expressions, path, split_off
from layerlab.names import Named, modules
from layerlab.widgets.freeze_state import Fact


def code(model: nn.Module, facts: Sequence[Fact], groups: Sequence[OwnGroup], *, clear_grad: bool) -> str:
    """Write what brings a fresh model and optimizer to this state: flags, learning rates, modes.

    Parameters
    ----------
    facts, groups
        The model's parameters and the optimizer's own groups as they are now.
    clear_grad
        Whether gradients that are there already are to be taken away from what is frozen by its flag.

    Returns
    -------
    str
        Lines for the variables ``model`` and ``optimizer``; where one has to be repeated in the training
        loop a comment says so.
    """
    everything = [fact.named for fact in facts]
    by_flag = [n for n in everything if not n.tensor.requires_grad]
    thrown = [n for n in everything if "grad_none" in ways_held(n.tensor)]
    lines: list[str] = []
    if by_flag:
        lines += [f"frozen = {bracketed(expressions(model, by_flag))}", "for parameter in frozen:"]
        lines.append("    parameter.requires_grad = False")
        if clear_grad:
            lines.append("    parameter.grad = None  # one that is already there would still be applied")
    if thrown:
        name = "without_gradient" if by_flag else "frozen"
        lines += [
            f"{name} = {bracketed(expressions(model, thrown))}",
            f"for parameter in {name}:  # after every loss.backward(), before optimizer.step()",
            "    parameter.grad = None",
        ]
    lines += _modes(model)
    lines += _lrs(model, everything, groups, "at_lr_0" if by_flag or thrown else "frozen")
    return "\n".join(lines)


def _lrs(model: nn.Module, everything: list[Named], groups: Sequence[OwnGroup], name: str) -> list[str]:
    lines = [
        _lr(index, 0.0 if group.zeroed else group.lr)
        for index, group in enumerate(groups)
        if group.lr is not None
    ]
    split = [index for index, group in enumerate(groups) if group.split]
    ids = {id(parameter) for group in groups for parameter in group.split}
    meant = [named for named in everything if id(named.tensor) in ids]
    if meant:
        lines.append(f"{name} = {bracketed(expressions(model, meant))}")
        lines += split_off(name, split, named=any(groups[index].named for index in split))
        last = len(groups)
        woken = [(last + i, groups[g].split_lr) for i, g in enumerate(split) if groups[g].split_lr]
        lines += [_lr(index, lr) for index, lr in woken]
    return lines


def _lr(index: int, lr: Any) -> str:
    place = f'optimizer.param_groups[{index}]["lr"]'
    return f"{place} = {f'{place}.new_tensor({float(lr)!r})' if isinstance(lr, torch.Tensor) else repr(lr)}"


def _modes(model: nn.Module) -> list[str]:
    """What is in eval mode: held there through every ``train()``, or put there once."""
    held = [name for name, module in modules(model) if batchnorm_choice(module) == "eval"]
    kept = {id(module) for _, module in modules(model) if batchnorm_choice(module) == "eval"}
    lines: list[str] = []
    done: set[int] = set()
    for name, module in modules(model):
        below = list(module.modules())
        if module.training or id(module) in done or id(module) in kept:
            continue
        if all(not one.training for one in below):
            lines.append(f"{path(model, name)}.eval()")
            done.update(map(id, below))
        else:
            lines.append(f"{path(model, name)}.training = False")
    if held:
        loop = f"for module in {bracketed(path(model, name) for name in held)}:"
        lines += [loop, "    module.eval()  # and again after every model.train()"]
    return lines
