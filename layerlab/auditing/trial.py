"""One forward and backward pass on the given batch: on a copy, so that nothing of the model changes."""

from __future__ import annotations

import copy
import random
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from layerlab.auditing.finding import Finding
from layerlab.auditing.modes import moves_statistics
from layerlab.auditing.output import output_and_loss
from layerlab.auditing.scene import Scene
from layerlab.auditing.wrapped import wrapper
from layerlab.compare import same_bits
from layerlab.names import tensors

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def findings_on(scene: Scene, batch: Any) -> Iterator[Finding]:
    """Run a copy of the model on a batch, and say what that shows.

    Parameters
    ----------
    batch
        A tensor, a tuple or list of positional arguments, or a mapping of keyword arguments.

    Raises
    ------
    ValueError
        The model cannot be copied, or it raises on this batch.
    """
    moved, unused, outputs = _run(scene, batch)
    yield from output_and_loss(scene, outputs)
    holders = dict(scene.modules)
    owners = dict.fromkeys(name.rpartition(".")[0] for name in moved)
    frozen = [o for o in owners if o in scene.frozen_parts and not moves_statistics(holders[o])]
    if frozen:
        yield scene.finding(
            "frozen-statistics", [o or type(scene.bare).__name__ for o in frozen],
            "it lies in a frozen part, and its buffers moved in a forward pass on the given batch: "
            + ", ".join(name for name in moved if name.rpartition(".")[0] in frozen),
            "; ".join(f"{scene.path(o)}.eval()" for o in frozen)
            + f"  # again after every {scene.path()}.train()",
        )  # fmt: skip
    if unused:
        ddp = wrapper(scene)
        waits = ddp is not None and not ddp.find_unused_parameters
        yield scene.finding(
            "unused-in-forward", unused,
            "the output on the given batch does not depend on it: its gradient stays None, and step() "
            "skips it"
            + (
                ". DistributedDataParallel waits for that gradient: the next forward pass raises"
                if waits
                else ". Right where another task uses it"
            ),
            f"{scene.wrapped()} = torch.nn.parallel.DistributedDataParallel("
            f"{scene.path()}, find_unused_parameters=True)"
            if waits
            else f"{scene.path(unused[0])}.requires_grad_(False)  # if no task uses it",
            level="error" if waits else "note",
        )  # fmt: skip


def _run(scene: Scene, batch: Any) -> tuple[list[str], list[str], list[Tensor]]:
    """Names of the buffers that a forward pass moved, and of the trainable parameters unused; its outputs."""
    try:
        net = copy.deepcopy(scene.bare)
    except Exception as error:
        raise ValueError(f"batch: the model cannot be copied, so nothing was run: {error}") from error
    _drop_functions(net)
    before = {named.name: named.tensor.detach().clone() for named in tensors(net) if named.kind == "buffer"}
    with _random_numbers_kept(net):
        try:
            with torch.enable_grad():
                outputs = list(_differentiable(_call(net, _copied(batch))))
        except Exception as error:
            raise ValueError(
                f"batch: the model raised {type(error).__name__} on it: {error}. A batch is a tensor, a "
                "tuple of positional arguments, or a dict of keyword arguments"
            ) from error
        moved = [n.name for n in tensors(net) if n.name in before and not same_bits(before[n.name], n.tensor)]
        if not outputs:
            return moved, [], []
        with torch.enable_grad():
            torch.stack([_real(output).sum().float() for output in outputs]).sum().backward()
    trainable = [n for n in tensors(net) if n.kind == "parameter" and n.tensor.requires_grad]
    return moved, [named.name for named in trainable if named.tensor.grad is None], outputs


def _drop_functions(net: nn.Module) -> None:
    """Take away hooks that a copy shares with the model: plain functions, which may write anywhere."""
    for module in net.modules():
        for kind in _HOOKS:
            hooks = getattr(module, kind, {})
            for key, hook in list(hooks.items()):
                if isinstance(hook, types.FunctionType):
                    del hooks[key]


def _call(net: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return net(**batch)
    return net(*batch) if isinstance(batch, (tuple, list)) else net(batch)


def _copied(value: Any) -> Any:
    """A copy of a batch, for a forward pass may write to its input."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, Mapping):
        return {key: _copied(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [_copied(one) for one in value]
    return copy.deepcopy(value)


def _differentiable(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.requires_grad:
            yield output
    elif isinstance(output, Mapping):
        for one in output.values():
            yield from _differentiable(one)
    elif isinstance(output, (tuple, list)):
        for one in output:
            yield from _differentiable(one)


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


@contextmanager
def _random_numbers_kept(net: nn.Module) -> Iterator[None]:
    """Put back every state of random numbers that a forward pass may draw on."""
    devices = sorted({p.device.index for p in net.parameters() if p.device.type == "cuda"})
    plain = random.getstate()
    numpy = sys.modules.get("numpy")
    state = numpy.random.get_state() if numpy else None
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(plain)
        if numpy:
            numpy.random.set_state(state)
