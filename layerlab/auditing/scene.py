"""What an audit looks at, read once: who holds which tensor, what is frozen, what the user calls it all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from layerlab.auditing.finding import CODES, Finding, Level
from layerlab.called import by_the_user, variable_of
from layerlab.freezing import how_frozen
from layerlab.freezing.plain_code import path
from layerlab.group_options import lr_of
from layerlab.names import Named, bare, left_out, modules, tensors
from layerlab.printable import printable
from layerlab.remade import remade_optimizer
from layerlab.show.words import some


@dataclass(eq=False)
class Scene:
    """The model with its optimizers, schedulers and loss. Rules read it and change nothing."""

    model: nn.Module
    """As given, wrappers included."""
    optimizers: Sequence[Optimizer]
    schedulers: Sequence[Any]
    loss: Callable[..., Any] | None = None

    def finding(
        self, code: str, names: Sequence[str], effect: str, cure: str, level: Level | None = None
    ) -> Finding:
        """A finding of this code, at its usual level unless told; what cannot be seen in names is shown."""
        shown = tuple(printable(name) for name in names)
        effect, cure = printable(effect), "\n".join(map(printable, cure.splitlines()))
        return Finding(code, level or CODES[code][0], some(shown), effect, cure, shown)

    # -- tensors and modules

    @cached_property
    def bare(self) -> nn.Module:
        """The model inside its wrappers."""
        return bare(self.model)

    @cached_property
    def parameters(self) -> list[Named]:
        """The model's parameters, each once."""
        return [named for named in tensors(self.model) if named.kind == "parameter"]

    @cached_property
    def buffers(self) -> list[Named]:
        """The model's buffers, each once."""
        return [named for named in tensors(self.model) if named.kind == "buffer"]

    @cached_property
    def modules(self) -> list[tuple[str, nn.Module]]:
        """Every module once, the model itself named ``""``."""
        return modules(self.model)

    @cached_property
    def own(self) -> dict[int, Named]:
        """The model's parameters by identity."""
        return {id(named.tensor): named for named in self.parameters}

    # -- who holds what

    @cached_property
    def held(self) -> dict[int, list[tuple[int, int]]]:
        """For each tensor in an optimizer, by identity: the places (optimizer, group) that list it."""
        found: dict[int, list[tuple[int, int]]] = {}
        for place, parameter in self._listed():
            found.setdefault(id(parameter), []).append(place)
        return found

    def _listed(self) -> Iterator[tuple[tuple[int, int], Tensor]]:
        for i, optimizer in enumerate(self.optimizers):
            for j, group in enumerate(optimizer.param_groups):
                for parameter in group["params"]:
                    yield (i, j), parameter

    def members(self, i: int) -> list[Tensor]:
        """The tensors that an optimizer holds, each once."""
        return list({id(p): p for g in self.optimizers[i].param_groups for p in g["params"]}.values())

    @cached_property
    def unheld(self) -> list[Named]:
        """Trainable parameters in no optimizer; those of an averaged copy are not meant to be in one."""
        return left_out(self.model, self.parameters, self.held)

    def foreign(self, i: int) -> list[Tensor]:
        """What an optimizer holds that neither the model nor the loss has."""
        of_loss = {id(p) for p in self.loss.parameters()} if isinstance(self.loss, nn.Module) else set()
        return [p for p in self.members(i) if id(p) not in self.own and id(p) not in of_loss]

    # -- what is frozen

    def zeroed(self, i: int, j: int) -> bool:
        """Whether a group is at lr 0, and not by its scheduler (a warm-up, the end of a decay)."""
        group = self.optimizers[i].param_groups[j]
        if lr_of(group) != 0:
            return False
        if float(group.get("initial_lr", 0)) == 0:
            return True
        # A scheduler was built on this group. If it is not given, or not of torch, whose zero this is cannot
        # be known; one of torch keeps the rates that it wrote last.
        last = [getattr(scheduler, "_last_lr", None) for scheduler in self.schedulers_of(i)]
        if not last or None in last:
            return False
        return not any(j < len(rates) and float(rates[j]) == 0 for rates in last if rates)

    def frozen_by(self, tensor: Tensor) -> str | None:
        """How a parameter is frozen: by its flag, by `layerlab.freezing`, or by lr = 0; None if it is not."""
        if not tensor.requires_grad:
            return "requires_grad"
        if (how := how_frozen(tensor)) is not None:
            return how
        places = self.held.get(id(tensor), [])
        asleep = bool(places) and all(self.zeroed(i, j) for i, j in places)
        return "lr_zero" if asleep and self._others_learn else None

    @cached_property
    def _others_learn(self) -> bool:
        return any(p.requires_grad and not self.zeroed(i, j) for (i, j), p in self._listed())

    @cached_property
    def frozen_parts(self) -> set[str]:
        """Names of the modules that lie in a frozen part: all they hold, or their owner holds, is frozen."""
        frozen = {id(n.tensor) for n in self.parameters if self.frozen_by(n.tensor)}
        found: set[str] = set()
        for name, module in self.modules:
            held = [id(p) for p in module.parameters()]
            if frozen.issuperset(held) if held else bool(name) and name.rpartition(".")[0] in found:
                found.add(name)
        return found

    # -- schedulers

    def schedulers_of(self, i: int) -> list[Any]:
        """The given schedulers of an optimizer, combining ones as they are."""
        return [s for s in self.schedulers if optimizer_of(s) is self.optimizers[i]]

    # -- what the user calls it

    @cached_property
    def _called(self) -> tuple[str, list[str]]:
        called = by_the_user(self.model, self.optimizers)
        names = list(called.optimizers)
        if len(set(names)) < len(names):
            names = [f"optimizers[{i}]" for i in range(len(names))]
        return called.model, names

    def path(self, name: str = "") -> str:
        """The expression for a module or tensor of the model: ``net.layer1[0].weight``."""
        expression = path(self.bare, name) if name else "model"
        return re.sub(r"^((?:getattr\()*)model\b", lambda m: m[1] + self._called[0], expression)

    def assigned(self, name: str, value: str) -> str:
        """The line that puts a value in the place of a module or tensor."""
        target = self.path(name)
        if not target.endswith(")"):
            return f"{target} = {value}"
        owner, _, last = name.rpartition(".")
        return f"setattr({self.path(owner)}, {last!r}, {value})"

    def optimizer(self, i: int) -> str:
        """The variable of an optimizer."""
        return self._called[1][i]

    def group(self, i: int, j: int) -> str:
        """What a parameter group is called in a place: ``group 1 of optimizer``."""
        return f"group {j} of {self.optimizer(i)}"

    def scheduler(self, scheduler: Any) -> str:
        """The variable of a scheduler."""
        return variable_of(scheduler) or "scheduler"

    def wrapped(self) -> str:
        """The variable of the model as it was given, in its wrapper."""
        return variable_of(self.model) or self._called[0].removesuffix(".module")

    def names(self, some_of: Sequence[Tensor]) -> list[str]:
        """Names of tensors: the model's, else the optimizer's, else their shape."""
        return [self._named.get(id(tensor)) or _by_its_shape(tensor) for tensor in some_of]

    @cached_property
    def _named(self) -> dict[int, str]:
        told: dict[int, str] = {}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                told |= {id(p): n for p, n in zip(group["params"], group.get("param_names", ()))}  # noqa: B905
        return told | {key: named.name for key, named in self.own.items()}

    def rebuilt(self, i: int) -> str:
        """The line that builds an optimizer anew, for all of the model that is trainable.

        Several groups are left to the user (``[...]``), and with them a learning rate that each group sets.
        """
        optimizer = self.optimizers[i]
        everything = all(named.tensor.requires_grad for named in self.parameters)
        model = self._called[0]
        hints = ["and then its scheduler"] if self.schedulers_of(i) else []
        if len(optimizer.param_groups) > 1:
            hints = [f"your groups, with the tensors that {model} has now", *hints]
        trainable = f"[p for p in {model}.parameters() if p.requires_grad]"
        what = f"{model}.parameters()" if everything else trainable
        line = f"{self.optimizer(i)} = {remade_optimizer(optimizer, what)}"
        return line + (f"  # {', '.join(hints)}" if hints else "")


def optimizer_of(scheduler: Any) -> Any:
    """The optimizer whose rates a scheduler sets; an older ChainedScheduler leaves it to its parts."""
    own = getattr(scheduler, "optimizer", None)
    inner = getattr(scheduler, "_schedulers", None)
    return own if own is not None or not inner else optimizer_of(inner[0])


def _by_its_shape(tensor: Tensor) -> str:
    if is_lazy(tensor):
        return "a tensor without a shape yet"
    return f"a tensor of {'×'.join(map(str, tensor.shape))}" if tensor.dim() else "a scalar"
