"""What is held of one model by one handle: holding other parameters, another way, and going back."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any
from weakref import ref

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.weak import WeakIdRef

from layerlab.freezing import Freeze, How, freeze, gradients, learning_rates, norm_eval
from layerlab.names import bare, tensors
from layerlab.widgets import freeze_state as state
from layerlab.widgets.freeze_history import Snapshot

MODEL_GONE = (
    "the model is gone: it was deleted, or made anew by running its cell again. "
    "Make the panel anew: FreezePanel(model, optimizer)"
)


class Grip:
    """One handle on a model, which it holds weakly, and the optimizer that trains it.

    Attributes
    ----------
    how, clear_grad
        The way to freeze, and whether gradients that are there already are taken away by it.
    handle, held
        The handle, and the parameters that it holds, by their ids.
    """

    def __init__(self, model: nn.Module) -> None:
        self.how: How = "requires_grad"
        self.clear_grad = False
        self.optimizer: Optimizer | None = None
        self.handle: Freeze | None = None
        self.held: dict[int, torch.Tensor] = {}
        self._model = ref(bare(model))

    @property
    def model(self) -> nn.Module:
        """The model.

        Raises
        ------
        ReferenceError
            It was deleted.
        """
        model = self._model()
        if model is None:
            raise ReferenceError(MODEL_GONE)
        return model

    @property
    def alive(self) -> bool:
        """Whether the model is still there."""
        return self._model() is not None

    def facts(self) -> list[state.Fact]:
        """Read every parameter, as `freeze_state.read` does."""
        return state.read(self.model, self.optimizer, self.handle, self.held)

    def own_groups(self) -> list[learning_rates.OwnGroup]:
        """The optimizer's own groups; none without an optimizer."""
        return learning_rates.own_groups(self.optimizer) if self.optimizer is not None else []

    def hold(
        self,
        wanted: dict[int, torch.Tensor],
        how: How | None = None,
        clear_grad: bool | None = None,
        *,
        again: Collection[int] = (),
    ) -> None:
        """Have the handle hold exactly these. If it cannot be done, nothing has changed.

        A new handle takes hold before the old one lets go, so that nothing is free in between and a group
        need not be joined and split again. Only where what was done to the gradients is to be done anew, the
        old one goes first; the ways that come then cannot fail. An lr that code gave to what is held at 0
        stays, but for the parameters in ``again``.
        """
        how = how or self.how
        clear_grad = self.clear_grad if clear_grad is None else clear_grad
        same = (self.how, self.clear_grad) == (how, clear_grad)
        if same and wanted.keys() == self.held.keys() and not again:
            return
        woken = self._woken_lrs(again)
        old, new = self.handle, None
        if old is not None and not same and how != "lr_zero":
            old.release()
        if wanted:
            patterns = [re.compile(re.escape(name)) for name in self._names(wanted)]
            new = freeze(self.model, patterns, how, optimizer=self.optimizer, clear_grad=clear_grad)
        if old is not None:
            old.release()  # harmless if it was released above
        self.handle, self.held = new, dict(wanted)
        self.how, self.clear_grad = how, clear_grad
        for group in self.optimizer.param_groups if self.optimizer is not None else ():
            lrs = [woken.get(id(p)) for p in group["params"]]
            if lrs and None not in lrs:
                group["lr"] = lrs[0]
        self._let_norms_train()

    def let_go(self) -> None:
        """Release all, also when the model is gone, and know nothing more of it."""
        if self.handle is not None:
            self.handle.release()
        self.handle, self.optimizer, self.held = None, None, {}

    def settle(self) -> None:
        """Let go of what code woke by its flag or its lr, and of what it took out of the model.

        Else an unseen handle would still keep BatchNorm in eval mode, or put an old gradient or lr back.
        """
        there = {id(named.tensor) for named in tensors(self.model)}
        by_flag = self.how == "requires_grad"
        woken = [p for p in self.held.values() if by_flag and p.requires_grad]
        left = {id(p) for p in woken} | (self.held.keys() - there) | self._free_by_lr()
        grads = [p.grad for p in woken]
        try:
            if left:
                self.hold({key: p for key, p in self.held.items() if key not in left})
        except ValueError:  # a scheduler was built on the groups as they are: holding on does no harm
            return
        finally:
            self._let_norms_train()
        for parameter, grad in zip(woken, grads, strict=True):
            parameter.requires_grad, parameter.grad = True, grad

    def woken_by_lr(self) -> dict[int, float]:
        """What is held at lr 0 and has another lr all the same, with that lr."""
        return {key: float(lr) for key, lr in self._woken_lrs(()).items()}

    def _free_by_lr(self) -> set[int]:
        """What code woke by its lr; not where joining its groups would lose that lr or break a scheduler."""
        awake = self._woken_lrs(()).keys()
        if not awake or self.optimizer is None:
            return set()
        scheduled = any("initial_lr" in group for group in self.optimizer.param_groups)
        apart = [g.split for g in self.own_groups() if g.split and (scheduled or g.split_lr != g.lr)]
        return awake - {id(parameter) for split in apart for parameter in split}

    def _let_norms_train(self) -> None:
        """What code woke by its lr is not frozen, also where it has to be held on to."""
        awake = self._woken_lrs(()).keys()
        if self.handle is None or not awake:
            return
        asleep = set(self._names(self.held.keys() - awake))
        found = [named for named in tensors(self.model) if named.name in asleep]
        stay = {name for name, _ in norm_eval.norms_inside(self.model, found)}
        self.handle.let_train([name for name in self.handle.eval_modules if name not in stay])

    def _names(self, wanted: Collection[int]) -> list[str]:
        """These parameters and, so that BatchNorm without any goes to eval mode too, buffers amid them."""
        everything = tensors(self.model)
        whole = [
            row.name + "."
            for row in state.rows(self.model, self.facts())
            if row.is_module and all(id(fact.named.tensor) in wanted for fact in row.facts)
        ]
        if all(id(n.tensor) in wanted for n in everything if n.kind == "parameter"):
            whole.append("")
        return [
            n.name
            for n in everything
            if id(n.tensor) in wanted or (n.kind == "buffer" and n.name.startswith(tuple(whole)))
        ]

    def _woken_lrs(self, again: Collection[int]) -> dict[int, Any]:
        """What is held by lr = 0 and has another lr all the same: a scheduler's, or code's."""
        if self.handle is None or self.how != "lr_zero" or self.optimizer is None:
            return {}
        held = self.held.keys() - set(again)
        groups = self.optimizer.param_groups
        return {id(p): g["lr"] for g in groups if g.get("lr") for p in g["params"] if id(p) in held}

    # -- there and back -----------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All that a step here can change, as it is now."""
        found: Snapshot = {("how",): self.how, ("clear",): self.clear_grad}
        lrs = state.lr_now(self.optimizer)
        for named in tensors(self.model):
            if named.kind == "buffer":
                continue
            parameter, key = named.tensor, WeakIdRef(named.tensor)
            found["held", key] = id(parameter) in self.held
            found["flag", key] = gradients.flag_at_release(parameter)
            found["flag now", key] = parameter.requires_grad
            found["grad", key] = gradients.grad_at_release(parameter)
            found["grad now", key] = parameter.grad
            found["lr now", key] = lrs.get(id(parameter))
        for index, group in enumerate(self.own_groups()):
            lr = group.lr.clone() if isinstance(group.lr, torch.Tensor) else group.lr
            found["lr", index, tuple(map(id, group.parameters))] = _Lr(lr)
        return found

    def go_to(self, target: Snapshot) -> None:
        """Bring to the values of a snapshot, or of a part of one, what it names."""
        here = self.snapshot()
        how, clear_grad = target.get(("how",), self.how), target.get(("clear",), self.clear_grad)
        wanted = dict(self.held)
        own = []  # flags and gradients as they are without a handle: to be set while there is none
        for (what, *where), value in target.items():
            parameter = where[0]() if where and isinstance(where[0], WeakIdRef) else None
            if parameter is None:
                continue
            if what == "held" and value:
                wanted[id(parameter)] = parameter
            elif what == "held":
                wanted.pop(id(parameter), None)
            elif what in ("flag", "grad"):
                own.append((parameter, what, value))
        touched = {id(parameter) for parameter, _, _ in own}
        between = {k: p for k, p in self.held.items() if k in wanted and k not in touched}
        self.hold(between, how, clear_grad)
        for parameter, what, value in own:
            if what == "flag":
                parameter.requires_grad = value
            else:
                gradients.put_back(parameter, value)
        for (what, *where), value in target.items():
            if what == "lr" and self.optimizer is not None:
                learning_rates.set_lr(self.optimizer, where[0], value.lr)
        self.hold(wanted, how, clear_grad, again=wanted.keys() - between.keys())
        for key in target:
            if key[0] == "held":  # what is newly held loses the gradient it has by now
                here.pop(("grad now", key[1]), None)
        self._wake(here | target)

    def _wake(self, target: Snapshot) -> None:
        """Bring back what handles do not: what code woke although they hold it, a gradient that one took."""
        for (what, *where), value in target.items():
            parameter = where[0]() if what in ("flag now", "grad now") else None
            if parameter is not None and what == "flag now":
                parameter.requires_grad = value
            elif parameter is not None and parameter.grad is not value:
                gradients.put_back(parameter, value)
        for group in self.optimizer.param_groups if self.optimizer is not None else ():
            lrs = {target.get(("lr now", WeakIdRef(p))) for p in group["params"]}
            lr = lrs.pop() if len(lrs) == 1 else None
            if lr is not None and float(group["lr"]) != lr:
                old = group["lr"]
                group["lr"] = torch.full_like(old, lr) if isinstance(old, torch.Tensor) else lr


class _Lr:
    """A learning rate that compares by value also where it is a tensor."""

    def __init__(self, lr: Any) -> None:
        self.lr = lr

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Lr) or None in (self.lr, other.lr):
            return isinstance(other, _Lr) and self.lr is other.lr
        return float(self.lr) == float(other.lr)

    __hash__ = None  # type: ignore[assignment]
