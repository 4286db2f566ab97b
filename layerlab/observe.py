"""Reads the facts: once when the gradients are there, once when the step is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from layerlab.compare import Change, as_real, copy_of, grad_state, one_thread
from layerlab.freezing import batchnorm_choice, how_frozen
from layerlab.group_options import lr_of
from layerlab.keeping import Values
from layerlab.reasons import Explainer, Verdict
from layerlab.record import STAYED_BECAUSE, Grad, Reason, TensorStep
from layerlab.snapshot import Snapshot, Watched


@dataclass(slots=True)
class _Facts:
    """What holds of one parameter just before the update."""

    requires_grad: bool
    frozen: str | None
    grad: Grad
    grad_max: float
    stale: bool
    optimizer: int | None
    group: int | None
    options: dict[str, Any]

    def number(self, option: str) -> float | None:
        value = self.options.get(option)
        return None if value is None else float(value)


class Observer:
    """Reads one model and its optimizers for the ledger."""

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer], elements: int | None) -> None:
        self.model = model
        self.optimizers = tuple(optimizers)
        self.gone: dict[int, tuple[Tensor, str]] = {}
        """Tensors that the model had and has no longer, by id (held, so that an id stays theirs)."""
        self.error = ""
        """Why the present step could not be replayed."""
        self.looked = False
        """`before` has run for the present step."""
        self.snapshot = Snapshot(model)
        self._explainers = [Explainer(o, elements) for o in optimizers]
        self._facts: dict[int, _Facts] = {}
        self._verdicts: dict[int, Verdict] = {}

    def begin(self) -> list[str]:
        """Take the values of now as the ones to compare the first step with.

        Returns
        -------
        list of str
            Parameters whose group has lr 0 while another group learns.
        """
        for watched in self.snapshot:
            watched.advance()
            watched.remember_grad()
        self.snapshot.watch_forward()
        groups = self._memberships(0)
        some_learn = self._some_learn()
        members = [(w.info.name, groups.get(id(w.tensor))) for w in self.snapshot]
        return [name for name, member in members if member and lr_of(member[2]) == 0 and some_learn]

    def close(self) -> None:
        """Remove the forward hooks and let go of the copies."""
        self.snapshot.close()
        self.gone.clear()
        self._facts.clear()
        self._verdicts.clear()

    def position(self, optimizer: Optimizer) -> int:
        """Where the optimizer stands in ``watch(model, *optimizers)``."""
        return next(i for i, o in enumerate(self.optimizers) if o is optimizer)

    def before(self, optimizer: Optimizer) -> None:
        """Read gradients, flags and groups, and explain the step that is about to happen."""
        for watched, name in self.snapshot.sync():
            self.gone[id(watched.tensor)] = (watched.tensor, name)
        stepping = self.position(optimizer)
        groups = self._memberships(stepping)
        some_learn = self._some_learn()
        with one_thread():
            self.snapshot.note_outside_edits()
            self._facts = {
                id(w.tensor): self._read(w, groups.get(id(w.tensor)), some_learn, stepping)
                for w in self.snapshot
                if w.is_parameter
            }
        stepped = [
            w.tensor
            for w in self.snapshot
            if (facts := self._facts.get(id(w.tensor)))
            and facts.optimizer == stepping
            and facts.grad != "none"
        ]
        with one_thread():
            self._verdicts, self.error = self._explainers[stepping].explain(stepped)
        self.looked = True

    def after(
        self, optimizer: Optimizer, step: int, wants: Callable[[int, int], bool]
    ) -> tuple[dict[str, TensorStep], dict[str, Values]]:
        """Compare every tensor with its copy and say why it moved or stayed.

        Returns
        -------
        tensors, kept
            The facts of every tensor by name, and the values that ``wants(step, elements)`` asked for.
        """
        stepping = self.position(optimizer)
        tensors: dict[str, TensorStep] = {}
        kept: dict[str, Values] = {}
        frozen_parts = self._frozen_modules()
        with one_thread():
            for watched in self.snapshot:
                keep = wants(step, watched.info.numel)
                before = copy_of(watched.shadow) if keep else None
                facts = self._facts.get(id(watched.tensor))
                if facts is None:
                    record = self._buffer(watched, frozen_parts.get(id(watched.tensor)))
                else:
                    record = self._parameter(watched, facts, stepping)
                tensors[watched.info.name] = record
                if before is not None:
                    kept[watched.info.name] = self._values(watched, before, record)
                if facts is not None and facts.optimizer == stepping:
                    watched.remember_grad()
        self._facts, self._verdicts, self.looked = {}, {}, False
        return tensors, kept

    def held(self) -> set[str]:
        """Names of the parameters that a `layerlab.freezing.Freeze` handle holds."""
        return {w.info.name for w in self.snapshot if w.is_parameter and how_frozen(w.tensor)}

    def _memberships(self, stepping: int) -> dict[int, tuple[int, int, dict[str, Any]]]:
        """Which optimizer and group hold each parameter; the stepping optimizer if several do."""
        held: dict[int, tuple[int, int, dict[str, Any]]] = {}
        order = [*(i for i in range(len(self.optimizers)) if i != stepping), stepping]
        for index in order:
            for group, options in enumerate(self.optimizers[index].param_groups):
                held.update({id(p): (index, group, options) for p in options["params"]})
        return held

    def _some_learn(self) -> bool:
        return any(lr_of(group) for optimizer in self.optimizers for group in optimizer.param_groups)

    def _read(
        self,
        watched: Watched,
        member: tuple[int, int, dict[str, Any]] | None,
        some_learn: bool,
        stepping: int,
    ) -> _Facts:
        parameter = watched.tensor
        optimizer, group, options = member or (None, None, {})
        frozen = how_frozen(parameter) if parameter.requires_grad else "requires_grad"
        if frozen == "requires_grad" and parameter.requires_grad:
            frozen = None  # a handle holds it, but somebody has set its flag back
        if frozen is None and member and lr_of(options) == 0 and some_learn:
            frozen = "lr_zero"
        grad, largest = grad_state(parameter.grad)
        stale = optimizer == stepping and watched.grad_is_stale()
        return _Facts(parameter.requires_grad, frozen, grad, largest, stale, optimizer, group, options)

    def _parameter(self, watched: Watched, facts: _Facts, stepping: int) -> TensorStep:
        verdict = self._verdicts.get(id(watched.tensor))
        rows = _idle_rows(watched) if verdict is not None and verdict.idle_rows else 0
        weight_norm, outside, before = watched.norm, watched.outside, watched.shadow
        holds = False
        if verdict is not None and verdict.reason is not Reason.UNKNOWN:
            holds = verdict.holds(before, watched.tensor)
            if not holds:
                self._explainers[stepping].distrust_samples()
        change = watched.advance()
        reason = _reason(change, outside, facts, stepping, verdict, holds)
        return TensorStep(
            info=watched.info,
            training=watched.named.module.training,
            requires_grad=facts.requires_grad,
            frozen=facts.frozen,
            grad=facts.grad,
            grad_max=facts.grad_max,
            grad_stale=facts.stale,
            optimizer=facts.optimizer,
            group=facts.group,
            lr=facts.number("lr"),
            weight_decay=facts.number("weight_decay"),
            state_steps=self._state_steps(watched.tensor, facts.optimizer),
            moved=change.moved,
            moved_outside=outside,
            delta_norm=change.norm,
            delta_max=change.largest,
            weight_norm=weight_norm,
            reason=reason,
            parts=verdict.parts() if verdict is not None and holds else None,
            zero_grad_rows_moved=rows if change.moved and facts.grad == "nonzero" else 0,
        )

    def _buffer(self, watched: Watched, frozen: str | None) -> TensorStep:
        weight_norm, outside, by_forward = watched.norm, watched.outside, watched.by_forward
        change = watched.advance()
        reason = Reason.UNTOUCHED
        if change.moved:
            reason = Reason.FORWARD if by_forward else Reason.OUTSIDE
        return TensorStep(
            info=watched.info,
            training=watched.named.module.training,
            requires_grad=watched.tensor.requires_grad,
            frozen=frozen,
            grad="none",
            grad_max=0.0,
            grad_stale=False,
            optimizer=None,
            group=None,
            lr=None,
            weight_decay=None,
            state_steps=None,
            moved=change.moved,
            moved_outside=change.moved and (outside or not by_forward),
            delta_norm=change.norm,
            delta_max=change.largest,
            weight_norm=weight_norm,
            reason=reason,
        )

    def _frozen_modules(self) -> dict[int, str | None]:
        """How the module around each buffer is frozen: all of its parameters, or None.

        A module without parameters of its own (BatchNorm with ``affine=False``) is as frozen as the nearest
        module around it that has some. One that a handle was told to leave in train mode is not.
        """
        found: dict[int, str | None] = {}
        flags = {w.info.name: self._facts[id(w.tensor)].frozen for w in self.snapshot if w.is_parameter}
        for watched in self.snapshot:
            if watched.is_parameter or batchnorm_choice(watched.named.module) == "train":
                continue
            module = watched.info.module
            inside = [how for name, how in flags.items() if name.rpartition(".")[0] == module]
            while not inside and module:
                inside = [how for name, how in flags.items() if name.startswith(module + ".")]
                module = module.rpartition(".")[0]
            inside = inside or list(flags.values())
            found[id(watched.tensor)] = inside[0] if inside and all(inside) else None
        return found

    def _state_steps(self, parameter: Tensor, optimizer: int | None) -> int | None:
        if optimizer is None:
            return None
        steps = self.optimizers[optimizer].state.get(parameter, {}).get("step")
        return None if steps is None else int(steps)

    def _values(self, watched: Watched, before: Tensor, record: TensorStep) -> Values:
        tensor, verdict = watched.tensor, self._verdicts.get(id(watched.tensor))
        values = Values(before, copy_of(tensor))
        if not watched.is_parameter:
            return values
        if tensor.grad is not None:
            values.gradient = tensor.grad.detach().clone()
        if verdict is not None and record.parts is not None and verdict.sample.block is None:
            pieces = (verdict.gradient, verdict.momentum, verdict.weight_decay)
            names = ("gradient", "momentum", "weight_decay")
            # Copies: a piece is a view of one long tensor, which it would keep in memory.
            values.parts = {n: copy_of(p) for n, p in zip(names, pieces, strict=True) if p is not None}
        if record.optimizer is not None:
            stored = self.optimizers[record.optimizer].state.get(tensor, {})
            values.state = {k: v.detach().clone() for k, v in stored.items() if isinstance(v, Tensor)}
        return values


def _reason(
    change: Change, outside: bool, facts: _Facts, stepping: int, verdict: Verdict | None, holds: bool
) -> Reason:
    """Put the evidence together: what was replayed decides, then what rules a cause out."""
    if facts.optimizer != stepping:
        return Reason.OUTSIDE if change.moved else Reason.NOT_IN_OPTIMIZER
    if verdict is not None:
        if not holds:
            return Reason.UNKNOWN
        if verdict.reason not in STAYED_BECAUSE or not change.moved:
            return verdict.reason
        if verdict.sample.block is not None:  # the sample stays; who moved the rest is not known
            return Reason.UNKNOWN
    if change.moved:
        return Reason.OUTSIDE if outside else Reason.UNKNOWN
    return Reason.NO_GRADIENT


def _idle_rows(watched: Watched) -> int:
    """Count rows of a matrix (or of more dimensions) whose gradient is all zero and that moved."""
    gradient = watched.tensor.grad
    if gradient is None or gradient.is_sparse or gradient.dim() < 2:
        return 0
    flat = as_real(gradient).flatten(1)
    idle = (flat.amax(1) == 0) & (flat.amin(1) == 0)
    moved = (watched.tensor[idle] != watched.shadow[idle]).flatten(1).any(1)
    return int(torch.count_nonzero(moved))
