"""Ways to freeze under DistributedDataParallel, each as a training function that two processes run.

Every function gets the bare network, an optimizer on its parameters (a group for each layer), this rank's
four batches and its rank. Its source is sent to the processes, where it finds the names of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import get_args

import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.optim import Optimizer

from layerlab.experiments.distributed.problems import Batch, Problem

Train = Callable[..., object]
"""``train(net, optimizer, batches, rank)``"""


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    batch: Batch,
    set_to_none: bool = True,
    drop: Iterable[nn.Parameter] = (),
) -> None:
    """One training step; the gradients of what is in `drop` are set to None after ``backward()``."""
    inputs, targets = batch
    optimizer.zero_grad(set_to_none=set_to_none)
    cross_entropy(model(*inputs), targets).backward()
    for p in drop:
        p.grad = None
    optimizer.step()


def other_task(net: nn.Module, batch: Batch) -> nn.Parameter:
    """The weight that a batch of the two tasks does not use."""
    task = batch[0][1]
    return net.get_parameter("hidden_task2.weight" if task == "task1" else "hidden_task1.weight")


# The article's network: the tasks take turns, so in every step one hidden layer is not used.


def alternate(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Do nothing about it."""
    ddp = DDP(net)
    for batch in batches:
        train_step(ddp, optimizer, batch)


def find_unused(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Let DDP look for what is not used."""
    ddp = DDP(net, find_unused_parameters=True)
    for batch in batches:
        train_step(ddp, optimizer, batch)


def grad_none(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Set the idle layer's gradient to None too, on both ranks."""
    ddp = DDP(net, find_unused_parameters=True)
    for batch in batches:
        train_step(ddp, optimizer, batch, drop=[other_task(net, batch)])


def flags(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Toggle requires_grad before each step."""
    ddp = DDP(net, find_unused_parameters=True)
    for batch in batches:
        for p in net.parameters():
            p.requires_grad = p is not other_task(net, batch)
        train_step(ddp, optimizer, batch)


def zeros(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Leave zeros in place of None."""
    ddp = DDP(net, find_unused_parameters=True)
    for batch in batches:
        train_step(ddp, optimizer, batch, set_to_none=False)


def zeros_grad_none(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Leave zeros, and set the idle layer's gradient to None after backward."""
    ddp = DDP(net, find_unused_parameters=True)
    for batch in batches:
        train_step(ddp, optimizer, batch, set_to_none=False, drop=[other_task(net, batch)])


def own_tasks(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Train task 1 on one rank while the other trains task 2."""
    ddp = DDP(net, find_unused_parameters=True)
    for step in range(len(batches)):
        train_step(ddp, optimizer, batches[step - rank])


def own_tasks_grad_none(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """The same, and each rank sets the gradient of its own idle layer to None."""
    ddp = DDP(net, find_unused_parameters=True)
    for step in range(len(batches)):
        batch = batches[step - rank]
        train_step(ddp, optimizer, batch, drop=[other_task(net, batch)])


# A network of two layers, body and head, all of which every batch uses.


def one_rank_grad_none(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Set the body's gradients to None on rank 0 alone."""
    ddp = DDP(net)
    body = list(net.get_submodule("body").parameters())
    for batch in batches:
        train_step(ddp, optimizer, batch, drop=body if rank == 0 else [])


def all_ranks_grad_none(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Set the body's gradients to None on all ranks."""
    ddp = DDP(net)
    body = list(net.get_submodule("body").parameters())
    for batch in batches:
        train_step(ddp, optimizer, batch, drop=body)


def lr_zero(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Give the body's group an lr of 0."""
    ddp = DDP(net)
    optimizer.param_groups[0]["lr"] = 0.0
    for batch in batches:
        train_step(ddp, optimizer, batch)


def frozen_after(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Wrap, and freeze the body after two steps."""
    ddp = DDP(net)
    for step, batch in enumerate(batches):
        if step == 2:
            net.get_submodule("body").requires_grad_(False)
        train_step(ddp, optimizer, batch)


def frozen_last(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Wrap, and freeze the body before the last step."""
    ddp = DDP(net)
    for step, batch in enumerate(batches):
        if step == len(batches) - 1:
            net.get_submodule("body").requires_grad_(False)
        train_step(ddp, optimizer, batch)


def released_after(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Freeze the body, wrap, and release it after two steps."""
    net.get_submodule("body").requires_grad_(False)
    ddp = DDP(net)
    for step, batch in enumerate(batches):
        if step == 2:
            net.get_submodule("body").requires_grad_(True)
        train_step(ddp, optimizer, batch)


def one_rank_frozen(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Freeze the body on rank 0 alone, and wrap."""
    net.get_submodule("body").requires_grad_(rank != 0)
    ddp = DDP(net)
    for batch in batches:
        train_step(ddp, optimizer, batch)


def wrap_anew(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Freeze the body for two steps, then release it; wrap anew each time."""
    for step, batch in enumerate(batches):
        if step in (0, 1, 3):
            net.get_submodule("body").requires_grad_(step != 1)
            ddp = DDP(net)
        train_step(ddp, optimizer, batch)


def one_rank_skips(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Skip a batch for which everything would be frozen, on rank 0 alone."""
    ddp = DDP(net)
    for step, batch in enumerate(batches):
        if rank == 0 and step == 3:
            continue
        train_step(ddp, optimizer, batch)


def one_rank_times_zero(net: nn.Module, optimizer: Optimizer, batches: list[Batch], rank: int) -> None:
    """Take part in that step all the same, with nothing to say."""
    ddp = DDP(net)
    for step, (inputs, targets) in enumerate(batches):
        optimizer.zero_grad()
        loss = cross_entropy(ddp(*inputs), targets)
        if rank == 0 and step == 3:
            loss = 0 * loss
        loss.backward()
        optimizer.step()


def sharded(net: nn.Module, batches: list[Batch], rank: int) -> None:
    """FSDP2 in place of DDP: shard, and freeze the body after two steps."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.optim import AdamW

    fully_shard(net, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = AdamW(net.parameters(), lr=0.1)
    for step, batch in enumerate(batches):
        if step == 2:
            net.get_submodule("body").requires_grad_(False)
        train_step(net, optimizer, batch)


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to freeze, in words, and what it means to hold still."""

    train: Train
    says: str
    """Its line in the table."""
    problem: Problem = "mlp"
    still: tuple[tuple[str, ...], ...] = ()
    """The parameters that are meant to stay in each step, on both ranks; what is frozen is, besides."""

    def __post_init__(self) -> None:
        if self.problem not in get_args(Problem):
            known = " or ".join(map(repr, get_args(Problem)))
            raise ValueError(f"{self.problem!r} is no network of this lesson: choose {known}")


_TURNS = (("hidden_task2.weight",), ("hidden_task1.weight",)) * 2
_BODY = ("body.weight", "body.bias")
_NONE: tuple[str, ...] = ()

VARIANTS: dict[str, Variant] = {
    variant.train.__name__: variant
    for variant in (
        Variant(alternate, "tasks take turns, DDP(net)", "two tasks", _TURNS),
        Variant(find_unused, "tasks take turns, find_unused_parameters=True", "two tasks", _TURNS),
        Variant(grad_none, "the same, and grad = None for the idle layer", "two tasks", _TURNS),
        Variant(flags, "the same, and requires_grad toggled", "two tasks", _TURNS),
        Variant(zeros, "the same, and zero_grad(set_to_none=False)", "two tasks", _TURNS),
        Variant(zeros_grad_none, "… and grad = None after backward()", "two tasks", _TURNS),
        Variant(own_tasks, "each rank on a task of its own, find_unused_parameters=True", "two tasks"),
        Variant(own_tasks_grad_none, "… and each sets its idle layer's grad = None", "two tasks"),
        Variant(all_ranks_grad_none, "body: grad = None on all ranks", still=(_BODY,) * 4),
        Variant(one_rank_grad_none, "body: grad = None on rank 0 alone"),
        Variant(lr_zero, "body: a parameter group with lr = 0", still=(_BODY,) * 4),
        Variant(
            frozen_after, "body frozen after wrapping, in the middle", still=(_NONE, _NONE, _BODY, _BODY)
        ),
        Variant(frozen_last, "body frozen after wrapping, in the last step", still=(*(_NONE,) * 3, _BODY)),
        Variant(released_after, "body frozen before wrapping, released after", still=(_BODY,) * 2),
        Variant(
            wrap_anew,
            "body frozen, later released, DDP wrapped anew each time",
            still=(_NONE, _BODY, _BODY, _NONE),
        ),
        Variant(one_rank_frozen, "body frozen before wrapping, on rank 0 alone"),
        Variant(one_rank_skips, "rank 0 skips a batch"),
        Variant(one_rank_times_zero, "… and takes it instead, its loss times 0"),
    )
}
"""By the name of their function, in the order in which the lesson runs them."""

SHARDED = Variant(
    sharded, "fully_shard (FSDP2), body frozen in the middle", still=(_NONE, _NONE, _BODY, _BODY)
)
"""It makes its own optimizer, since sharding replaces the parameters; a ledger cannot read sharded ones."""
