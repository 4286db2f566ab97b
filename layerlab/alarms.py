"""What a learner should be told about a step: rules over the record alone.

Each rule looks at one tensor's facts in one step, with a short memory of its past, and gives an alarm with
its cause and the line of PyTorch that cures it. Rules over the model's wiring are in `layerlab.wiring`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from layerlab.record import Alarm, Level, Reason, Step, TensorStep


@dataclass(slots=True)
class Past:
    """What the rules remember of one tensor."""

    before: TensorStep | None = None
    """Its facts at the previous step of the optimizer that holds it."""
    trained: bool = False
    """It has moved by its own gradient."""
    still_steps: int = 0
    """Steps of its optimizer in which it stayed, since it last moved."""
    ever_moved: bool = False
    lr_was_zero_alone: bool = False
    """Its group's lr was 0 while another group's was not: a layer frozen by lr = 0."""


Rule = Callable[[Step, TensorStep, Past], "Alarm | None"]


class AlarmBook:
    """Collects alarms over a run, each (code, name) once, with the first step and the count."""

    def __init__(self) -> None:
        self._past: dict[str, Past] = {}
        self._alarms: dict[tuple[str, str], Alarm] = {}

    def note_lr_zero(self, names: Collection[str]) -> None:
        """Take note of tensors that lr = 0 froze before the first step: some schedulers wake them at once."""
        for name in names:
            self._past.setdefault(name, Past()).lr_was_zero_alone = True

    def read(self, step: Step, held: Collection[str] = ()) -> list[Alarm]:
        """Apply every rule to a step; return its alarms, the gravest first.

        ``held`` names the tensors that a `layerlab.freezing.Freeze` handle holds: nobody forgot to release
        those.
        """
        found = [a for a in self._apply(step) if not (a.code == "left-frozen" and a.name in held)]
        self._remember(step)
        return self.add(found)

    def add(self, found: list[Alarm], *, in_a_step: bool = True) -> list[Alarm]:
        """Enter alarms found elsewhere; return them, the gravest first. Only steps are counted."""
        for alarm in found:
            key = (alarm.code, alarm.name)
            known = self._alarms.get(key)
            if known is None:
                self._alarms[key] = alarm
            elif in_a_step and known.step >= 0:
                self._alarms[key] = replace(known, count=known.count + 1)
        return by_gravity(found)

    def all(self) -> list[Alarm]:
        """Every alarm so far, the gravest first, then by step; with the tensors that never moved."""
        return by_gravity([*self._alarms.values(), *self._never_moved()])

    def _apply(self, step: Step) -> Iterator[Alarm]:
        for tensor in step.tensors.values():
            past = self._past.setdefault(tensor.name, Past())
            for rule in RULES:
                alarm = rule(step, tensor, past)
                if alarm is not None:
                    yield alarm
        yield from _buffers_of_frozen_modules(step)

    def _remember(self, step: Step) -> None:
        others_learn = {t.group for t in step.tensors.values() if t.optimizer == step.optimizer and t.lr}
        for tensor in step.tensors.values():
            past = self._past[tensor.name]
            past.ever_moved |= tensor.moved
            if tensor.optimizer != step.optimizer:
                continue
            past.before = tensor
            past.trained |= tensor.reason is Reason.GRADIENT
            past.still_steps = 0 if tensor.moved else past.still_steps + 1
            if tensor.lr == 0 and others_learn:
                past.lr_was_zero_alone = True

    def _never_moved(self) -> Iterator[Alarm]:
        for name, past in self._past.items():
            last = past.before
            if last is None or past.ever_moved or past.still_steps < 2:
                continue
            if last.frozen is None and last.requires_grad:
                yield Alarm(
                    "never-moved",
                    "alarm" if last.grad == "nonzero" else "notice",
                    name,
                    0,
                    f"trainable, and still after {past.still_steps} steps ({last.reason})",
                    _WHY_STILL.get(last.reason, "see its reason"),
                    _CURE_STILL.get(last.reason, f"ledger[-1][{name!r}]  # read its facts").format(
                        p=path(name)
                    ),
                    past.still_steps,
                )


def by_gravity(alarms: list[Alarm]) -> list[Alarm]:
    """Alarms before notices, then in the order they came."""
    return sorted(alarms, key=lambda a: (a.level != "alarm", a.step))


def path(name: str) -> str:
    """The Python expression for a dotted name: ``layer1.0.weight`` → ``model.layer1[0].weight``."""
    expression = "model"
    for part in name.split("."):
        if part.isdigit():
            expression += f"[{part}]"
        elif part.isidentifier():
            expression += f".{part}"
        else:
            owner, _, last = name.rpartition(".")
            return f"getattr(model.get_submodule({owner!r}), {last!r})"
    return expression


def _frozen_but_moved(step: Step, t: TensorStep, past: Past) -> Alarm | None:
    if not (t.info.kind == "parameter" and t.frozen and t.moved):
        return None
    what = f"frozen ({t.frozen}) but moved: {t.reason}"
    if t.moved_outside and t.reason is Reason.OUTSIDE:
        return _alarm(
            "frozen-edited", step, t, what,
            "something other than the watched optimizer wrote to it: an in-place edit, load_state_dict, "
            "or an optimizer that is not watched",
            f"before = {path(t.name)}.clone()  # compare with torch.equal to find the line that edits it",
        )  # fmt: skip
    if t.grad in ("nonzero", "nonfinite") and t.frozen == "requires_grad":
        return _alarm(
            "frozen-too-late", step, t, what,
            "requires_grad=False stops new gradients, but the gradient of this step was already there "
            "and step() applies every gradient that is not None",
            f"{path(t.name)}.grad = None  # after freezing, before optimizer.step()",
        )  # fmt: skip
    if t.reason is Reason.UNKNOWN:
        return _alarm("frozen-but-moved", step, t, what, *_shared_history(step))
    return _alarm(
        "frozen-but-moved", step, t, what,
        f"its gradient is a tensor of zeros, not None: step() does not skip it, and {t.reason} moves it",
        f"{path(t.name)}.grad = None  # after loss.backward(), before optimizer.step()",
    )  # fmt: skip


def _moved_without_gradient(step: Step, t: TensorStep, past: Past) -> Alarm | None:
    if t.info.kind != "parameter" or t.frozen or not t.moved or t.grad not in ("none", "zero"):
        return None
    if t.moved_outside or t.optimizer != step.optimizer or not step.completed:
        return None
    what = f"moved without a gradient: {t.reason}"
    if t.reason is Reason.UNKNOWN:
        return _alarm("moved-without-gradient", step, t, what, *_shared_history(step))
    return _alarm(
        "moved-without-gradient", step, t, what,
        "it took no part in this loss, but its gradient is a tensor of zeros, not None: "
        f"step() does not skip it, and {t.reason} moves it",
        f"{path(t.name)}.grad = None  # before optimizer.step(); or optimizer.zero_grad(set_to_none=True), "
        "if the zeros come from zero_grad",
    )  # fmt: skip


def _shared_history(step: Step) -> tuple[str, str]:
    return (
        f"{step.optimizer_type} moved it without a gradient of its own, and the step cannot be replayed: "
        "such an optimizer (LBFGS) keeps one history for all its parameters",
        f"optimizer = torch.optim.{step.optimizer_type}([p for p in model.parameters() if p.requires_grad])"
        "  # anew, after freezing",
    )


def _stale_gradient(step: Step, t: TensorStep, past: Past) -> Alarm | None:
    if not (t.grad_stale and t.moved and t.grad == "nonzero") or t.optimizer != step.optimizer:
        return None
    return _alarm(
        "stale-gradient", step, t,
        "moved by a gradient that an earlier step had already used",
        "no backward pass has touched this gradient since the previous step: zero_grad() was not called, "
        "or does not cover this parameter",
        "model.zero_grad()  # or optimizer.zero_grad(), before loss.backward()",
    )  # fmt: skip


def _trains_nowhere(step: Step, t: TensorStep, past: Past) -> Alarm | None:
    has_gradient = t.grad in ("nonzero", "nonfinite")
    if t.info.kind != "parameter" or not has_gradient or t.optimizer is not None or t.frozen:
        return None
    return _alarm(
        "in-no-optimizer", step, t,
        "trainable, has a gradient, and stays still: no watched optimizer holds it",
        "the optimizer was built before this parameter was put into the model, or while it was frozen "
        "and filtered out (or from a generator that was already used up)",
        f'optimizer.add_param_group({{"params": [{path(t.name)}]}})  # once; or build the optimizer anew',
    )  # fmt: skip


def _left_frozen(step: Step, t: TensorStep, past: Past) -> Alarm | None:
    if t.info.kind != "parameter" or t.frozen != "requires_grad" or t.moved or not past.trained:
        return None
    if past.before is None or past.before.requires_grad or t.optimizer != step.optimizer:
        return None
    return _alarm(
        "left-frozen", step, t,
        "trained earlier in this run, and has been frozen for two steps or more",
        "requires_grad stays False until something sets it to True again",
        f"{path(t.name)}.requires_grad_(True)  # if it was meant to be frozen for one step only",
        level="notice",
    )  # fmt: skip


def _woken(step: Step, t: TensorStep, past: Past) -> Alarm | None:
    if not (past.lr_was_zero_alone and t.lr and t.moved) or t.optimizer != step.optimizer:
        return None
    return _alarm(
        "woken", step, t,
        f"frozen by lr = 0, but its group's lr is now {t.lr:.2g}: it moved",
        "a scheduler rewrote the lr of its group (cosine with eta_min, warm restarts, OneCycle, Cyclic do)",
        f"{path(t.name)}.requires_grad_(False); {path(t.name)}.grad = None  # a schedule cannot wake it",
    )  # fmt: skip


def _stale_momentum(step: Step, t: TensorStep, past: Past) -> Alarm | None:
    before, parts = past.before, t.parts
    paused = before is not None and not before.moved and before.grad == "none"
    if not (paused and past.trained and t.moved and t.reason is Reason.GRADIENT and parts):
        return None
    if parts.momentum <= parts.gradient or parts.agreement >= 0:
        return None
    return _alarm(
        "stale-momentum", step, t,
        "released after a pause, and walks against its own gradient",
        "the optimizer kept its momentum from before the pause, and that is larger than the new gradient's "
        "part of the step",
        f"optimizer.state.pop({path(t.name)}, None)  # when releasing it",
    )  # fmt: skip


def _idle_rows(step: Step, t: TensorStep, past: Past) -> Alarm | None:
    if not t.zero_grad_rows_moved:
        return None
    return _alarm(
        "idle-rows-moved", step, t,
        f"{t.zero_grad_rows_moved} of {t.info.shape[0]} rows have a zero gradient and moved all the same",
        "stored state or weight decay moves every row of a tensor whose gradient is not None; "
        "masking rows of the gradient does not freeze them",
        f"p = {path(t.name)}; idle = ~p.grad.flatten(1).any(1); old = p.detach().clone(); "
        "optimizer.step(); p.data[idle] = old[idle]",
        level="notice",
    )  # fmt: skip


def _nonfinite(step: Step, t: TensorStep, past: Past) -> Alarm | None:
    if t.grad != "nonfinite" or t.optimizer != step.optimizer or t.reason is Reason.SKIPPED:
        return None
    return _alarm(
        "nonfinite-gradient", step, t,
        "its gradient holds inf or NaN" + (", and it moved" if t.moved else ""),
        "the loss or a layer before it overflowed; lr = 0 does not protect: 0 × NaN is NaN",
        "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)"
        "  # before optimizer.step()",
    )  # fmt: skip


def _buffers_of_frozen_modules(step: Step) -> Iterator[Alarm]:
    moved: dict[str, list[TensorStep]] = {}
    for t in step.tensors.values():
        if t.info.kind == "buffer" and t.frozen and t.moved:
            moved.setdefault(t.info.module, []).append(t)
    for module, buffers in moved.items():
        names = ", ".join(t.name.rpartition(".")[2] for t in buffers)
        first = buffers[0]
        forward = first.reason is Reason.FORWARD
        yield Alarm(
            "frozen-statistics", "alarm", module or first.name, step.index,
            f"its parameters are frozen, but its buffers moved ({names}): {first.reason}",
            f"{first.info.module_type} is in train mode and updates its running statistics in every forward "
            "pass, with or without gradients (no_grad too)"
            if forward
            else "something wrote to them in place",
            f"{path(module) if module else 'model'}.eval()  # again after every model.train()",
        )  # fmt: skip


def _alarm(
    code: str, step: Step, t: TensorStep, what: str, cause: str, cure: str, level: Level = "alarm"
) -> Alarm:
    return Alarm(code, level, t.name, step.index, what, cause, cure)


_WHY_STILL = {
    Reason.NO_GRADIENT: "no loss reached it: its gradient was None every time",
    Reason.ZERO_GRADIENT: "its gradient was zero every time",
    Reason.BELOW_RESOLUTION: "its updates are smaller than the spacing of numbers of its size and dtype",
    Reason.LR_ZERO: "its parameter group has lr = 0",
}
_CURE_STILL = {
    Reason.NO_GRADIENT: "{p}.requires_grad_(False)  # if it is not meant to train; else use it in the loss",
    Reason.ZERO_GRADIENT: "print({p}.grad)  # after backward(): find what multiplies it by zero",
    Reason.BELOW_RESOLUTION: "{p}.data = {p}.data.double()  # or a larger lr for its group",
    Reason.LR_ZERO: "optimizer.param_groups[...]['lr'] = 1e-3  # if it is meant to train",
}

RULES: tuple[Rule, ...] = (
    _frozen_but_moved,
    _moved_without_gradient,
    _stale_gradient,
    _trains_nowhere,
    _left_frozen,
    _woken,
    _stale_momentum,
    _idle_rows,
    _nonfinite,
)
