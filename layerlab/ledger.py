"""`watch`: before and after every optimizer step, which tensors moved, which stayed, and why."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, overload

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from layerlab.alarms import AlarmBook, by_gravity
from layerlab.called import by_the_user
from layerlab.group_options import has_scheduler
from layerlab.keeping import Keep, Keeper, Values
from layerlab.observe import Observer
from layerlab.reasons import SAMPLE
from layerlab.record import Alarm, Reason, Step
from layerlab.remade import remade_optimizer
from layerlab.show import Shown, describe_steps
from layerlab.wiring import wiring_alarms
from layerlab.wrappers import inside


def watch(
    model: nn.Module, *optimizers: Optimizer, keep: Keep = "auto", explain: int | Literal["all"] = SAMPLE
) -> Ledger:
    """Record every step that the optimizers take, for as long as the ``with`` block lasts.

    Your training loop stays as it is: the ledger sees it through the optimizers' step hooks and through
    forward hooks on modules with buffers. Leaving the block removes every hook, also after an exception.

    Parameters
    ----------
    model
        All its parameters and buffers are watched, also those that no optimizer holds.
    *optimizers
        The optimizers that train it, one or several. Each ``step()`` of any of them is one entry. Of a
        wrapper, as accelerate and Lightning put around an optimizer, the one inside is watched.
    keep
        Which steps' values are kept for pictures: ``"auto"`` (tensors of up to 16,384 elements, the newest
        64 MiB), ``"none"``, ``"all"``, step numbers, or a function of the step number.
    explain
        How many elements of a larger tensor the reasons are worked out on; ``"all"`` replays every tensor
        whole, which costs a few optimizer steps more and makes `Parts` exact.

    Returns
    -------
    Ledger
        Empty until entered: ``with watch(net, optimizer) as ledger: …``

    Raises
    ------
    TypeError
        If the model is no module, an optimizer is something else (a scheduler, say), or ``keep`` is none of
        the above.
    ValueError
        Without an optimizer; with the same one twice; for an unknown ``keep`` or ``explain``; for tensors
        without values here (meta, uninitialised, sharded by ``fully_shard``).

    Notes
    -----
    Memory: one copy of the watched tensors, plus plain numbers for each step. Reasons come from
    counterfactual steps on clones (see `layerlab.reasons`). A step that ``torch.amp.GradScaler`` skips is no
    step: the optimizer is not called (a fused one is called and leaves everything: ``step skipped``).
    Hooks: `torch.optim.Optimizer.register_step_pre_hook`.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"watch needs a torch.nn.Module, not {type(model).__name__}")
    if not optimizers:
        raise ValueError("watch needs the optimizer too: watch(model, optimizer)")
    given: tuple[Any, ...] = optimizers
    for optimizer in given:
        if not isinstance(optimizer, Optimizer):
            hint = "; give it the scheduler's optimizer" if hasattr(optimizer, "optimizer") else ""
            if isinstance(optimizer, (list, tuple)):
                hint = "; give them one by one: watch(model, *optimizers)"
            raise TypeError(f"watch takes optimizers after the model, not {type(optimizer).__name__}{hint}")
    if len({id(inside(o)) for o in optimizers}) < len(optimizers):
        raise ValueError("the same optimizer was given twice")
    if explain != "all" and (not isinstance(explain, int) or explain < 1):
        raise ValueError(f"explain={explain!r}: give a number of elements from 1 up, or 'all'")
    return Ledger(model, optimizers, Keeper(keep), None if explain == "all" else explain)


class Ledger(Sequence[Step]):
    """The record of a run: one `Step` for every optimizer step, made by `watch`.

    ``ledger[-1]["fc.weight"].reason`` reads one fact; ``ledger.rows()`` gives plain dicts for a DataFrame.
    """

    def __init__(
        self, model: nn.Module, optimizers: Sequence[Optimizer], keeper: Keeper, elements: int | None
    ) -> None:
        self._observer: Observer | None = Observer(model, [inside(o) for o in optimizers], elements)
        self._keeper = keeper
        self._steps: list[Step] = []
        self._book = AlarmBook(by_the_user(model, optimizers))
        self._handles: list[RemovableHandle] = []
        self._followers: list[Callable[[], None]] = []
        self._stepping: Optimizer | None = None
        self._closures = 0
        self._used = False

    # -- as a context ------------------------------------------------------------------------------------

    def __enter__(self) -> Ledger:
        if self._used or self._observer is None:
            raise RuntimeError("this ledger has recorded its run; call watch() again for another")
        self._used = True
        self._book.note_lr_zero(self._observer.begin(), self._observer.held())
        self._check_wiring(-1, in_a_step=False)
        for optimizer in self._observer.optimizers:
            self._handles += [
                optimizer.register_step_pre_hook(self._before_step),
                optimizer.register_step_post_hook(self._after_step),
            ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        observer = self._observer
        if observer is None:
            return
        try:
            self._close_raised_step()
            self._check_wiring(len(self._steps) - 1, in_a_step=False)
        finally:
            observer.close()
            self._observer = None  # lets go of the model and its copy
            self._tell_followers()
            self._followers.clear()

    # -- as a sequence -----------------------------------------------------------------------------------

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> list[Step]: ...
    def __getitem__(self, index: int | slice) -> Step | list[Step]:
        if isinstance(index, int) and not -len(self._steps) <= index < len(self._steps):
            raise IndexError(f"no step {index}: {len(self._steps)} recorded")
        return self._steps[index]

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def alarms(self) -> list[Alarm]:
        """Every alarm and notice so far, alarms first, each once with its first step and its count."""
        return self._book.all()

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict for each tensor and step: ``pandas.DataFrame(ledger.rows())``."""
        return [
            {"step": step.index, "stepped": step.optimizer_type, **tensor.as_dict()}
            for step in self._steps
            for tensor in step.tensors.values()
        ]

    @property
    def kept_steps(self) -> list[int]:
        """The steps of which values are kept."""
        return self._keeper.steps

    def values(self, step: int, name: str) -> Values:
        """Return the kept values of a tensor in one step: before, after, gradient, parts and stored state.

        Raises
        ------
        KeyError
            If there is no such tensor, or its values were not kept; the message says how to keep them.
        IndexError
            If there is no such step.
        """
        record = self[step]
        found = self._keeper.get(record.index, record[name].name)
        if found is None:
            raise KeyError(
                f"the values of {name!r} at step {record.index} were not kept; "
                f"watch(…, keep=[{record.index}]) keeps them whole"
            )
        return found

    @property
    def recording(self) -> bool:
        """Whether the ``with`` block is being run: more steps may come."""
        return self._used and self._observer is not None

    def follow(self, react: Callable[[], None]) -> Callable[[], None]:
        """Call ``react()`` after every step, and once when the ``with`` block is left.

        It runs inside the training step, so it should be quick. One that raises is not called again, and a
        warning says so: it must not break the training.

        Returns
        -------
        callable
            Ends it; harmless when called again.
        """
        if self._observer is not None:
            self._followers.append(react)
        return lambda: self._followers.remove(react) if react in self._followers else None

    def __repr__(self) -> str:
        return repr(self._shown())

    def _repr_html_(self) -> str:
        return self._shown()._repr_html_()

    def _shown(self) -> Shown:
        return Shown(describe_steps(self._steps, self.alarms))

    # -- hooks -------------------------------------------------------------------------------------------

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        if self._observer is None or _is_inner_call(optimizer):
            return None
        self._close_raised_step()
        self._stepping, self._closures = optimizer, 0
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if not callable(closure):
            self._look(optimizer)
            return None

        # With a closure the gradients come inside the step: look once it has run, before the update.
        def and_look(*inputs: Any, **options: Any) -> Any:
            loss = closure(*inputs, **options)
            self._closures += 1
            if self._closures == 1:
                self._look(optimizer)
            return loss

        if len(args) > 1:
            return (args[0], and_look, *args[2:]), kwargs
        return args, {**kwargs, "closure": and_look}

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._observer is not None and self._stepping is optimizer and not _is_inner_call(optimizer):
            self._record(optimizer, completed=True)

    def _look(self, optimizer: Optimizer) -> None:
        assert self._observer is not None
        with torch.no_grad():
            self._observer.before(optimizer)

    def _record(self, optimizer: Optimizer, *, completed: bool) -> None:
        observer, index = self._observer, len(self._steps)
        assert observer is not None
        self._stepping = None
        with torch.no_grad():
            tensors, kept = observer.after(optimizer, index, self._keeper.wants)
        position = observer.position(optimizer)
        step = Step(index, position, type(optimizer).__name__, tensors, completed, note=observer.error)
        if any(t.reason is Reason.UNKNOWN and t.moved for t in tensors.values()):
            trainable = "[p for p in model.parameters() if p.requires_grad]"
            step.remade = remade_optimizer(optimizer, trainable)
        step.named_groups = "param_names" in optimizer.param_groups[0]
        step.scheduled = has_scheduler(optimizer)
        step.alarms = by_gravity([*self._book.read(step, observer.held()), *self._check_wiring(index)])
        for name, values in kept.items():
            self._keeper.add(index, name, values)
        self._steps.append(step)
        self._tell_followers()

    def _tell_followers(self) -> None:
        for react in list(self._followers):
            try:
                react()
            except Exception as error:
                self._followers.remove(react)
                warnings.warn(f"no longer told of steps, since it raised: {error!r}", stacklevel=2)

    def _close_raised_step(self) -> None:
        """Enter a step that began and never ended: it raised."""
        optimizer = self._stepping
        if optimizer is not None and self._observer is not None:
            if not self._observer.looked:
                self._look(optimizer)
            self._record(optimizer, completed=False)

    def _check_wiring(self, step: int, *, in_a_step: bool = True) -> list[Alarm]:
        observer = self._observer
        assert observer is not None
        parameters = [w.named for w in observer.snapshot if w.is_parameter]
        found = wiring_alarms(observer.model, parameters, observer.optimizers, step, observer.gone)
        return self._book.add(found, in_a_step=in_a_step)


def _is_inner_call(optimizer: Optimizer) -> bool:
    """Whether this hook was called for ``super().step()`` inside the step that counts."""
    hook = sys._getframe(1)
    wrapper = hook.f_back  # the function that PyTorch puts around step() to call the hooks
    frame = wrapper.f_back if wrapper else None
    while wrapper and frame:
        if frame.f_code is wrapper.f_code and frame.f_locals.get("self") is optimizer:
            return True
        frame = frame.f_back
    return False
