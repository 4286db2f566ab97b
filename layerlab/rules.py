"""The rules over a step's record: what a learner should be told, why, and the line that cures it.

Each rule looks at one tensor's facts in one step, with a short memory of its past. Rules over the wiring of
model and optimizers are in `layerlab.wiring`.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from layerlab.record import Alarm, Level, Reason, Step, TensorStep
from layerlab.remade import groups_hint


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
    held: bool = False
    """A `layerlab.freezing.Freeze` handle held it at the previous step."""
    only_noise: bool = True
    """Its gradient has always been a tiny share of its module's largest: rounding noise."""
    lr_was_zero_alone: bool = False
    """Its group's lr was 0 while another group's was not: a layer frozen by lr = 0."""


def path(name: str) -> str:
    """The Python expression for a dotted name: ``layer1.0.weight`` → ``model.layer1[0].weight``."""
    expression = "model"
    for part in name.split("."):
        if part.isdigit():
            expression += f"[{part}]"
        elif part.isidentifier() and not keyword.iskeyword(part):
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
        return _alarm("frozen-but-moved", step, t, what, *_not_replayed(step))
    if t.grad in ("nonzero", "nonfinite"):  # frozen by lr = 0
        why = (
            "0 times inf or NaN is NaN"
            if t.grad == "nonfinite"
            else f"{step.optimizer_type} takes the size of its step from elsewhere, not from lr alone"
        )
        return _alarm(
            "frozen-but-moved", step, t, what,
            f"lr = 0 does not keep a gradient away, and {why}",
            f"{path(t.name)}.requires_grad_(False); {path(t.name)}.grad = None  # before optimizer.step()",
        )  # fmt: skip
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
        return _alarm("moved-without-gradient", step, t, what, *_not_replayed(step))
    return _alarm(
        "moved-without-gradient", step, t, what,
        "it took no part in this loss, but its gradient is a tensor of zeros, not None: "
        f"step() does not skip it, and {t.reason} moves it",
        f"{path(t.name)}.grad = None  # before optimizer.step(); or optimizer.zero_grad(set_to_none=True), "
        "if the zeros come from zero_grad",
    )  # fmt: skip


def _not_replayed(step: Step) -> tuple[str, str]:
    """Cause and cure where no replay could tell why it moved."""
    why = (
        "LBFGS keeps one history for all its parameters, and a step along it moves them all"
        if step.optimizer_type == "LBFGS"
        else f"{step.optimizer_type} moved it, and no replay of the step shows why"
        + (f" ({step.note})" if step.note else "")
        + "; it may keep one history for all its parameters, as LBFGS does"
    )
    return why, f"optimizer = {step.remade}  # {groups_hint(step.remade)}anew, after freezing"


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
    new = f"({t.name!r}, {path(t.name)})" if step.named_groups else path(t.name)
    return _alarm(
        "in-no-optimizer", step, t,
        "trainable, has a gradient, and stays still: no watched optimizer holds it",
        "the optimizer was built before this parameter was put into the model, or while it was frozen "
        "and filtered out (or from a generator that was already used up)",
        f'optimizer.add_param_group({{"params": [{new}]}})  # once; or build the optimizer anew',
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
    what = f"frozen by lr = 0, but its group's lr is now {t.lr:.2g}: it moved"
    freeze = f"{path(t.name)}.requires_grad_(False); {path(t.name)}.grad = None"
    if not step.scheduled:
        return _alarm(
            "woken", step, t, what,
            "no scheduler was built on this optimizer: other code set the lr of its group, to release it or "
            "as a schedule written by hand",
            f"{freeze}  # if it was to stay frozen: no lr can wake it then",
            level="notice",
        )  # fmt: skip
    return _alarm(
        "woken", step, t, what,
        "a scheduler rewrote the lr of its group (cosine with eta_min, warm restarts, OneCycle, Cyclic do)",
        f"{freeze}  # a schedule cannot wake it",
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
        "stored state or weight decay moves every row of a tensor whose gradient is not None, also one "
        "without a gradient in this step: an embedding's unused word, a ReLU unit that is off, or one that "
        "you masked",
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


def buffers_of_frozen_modules(step: Step) -> Iterator[Alarm]:
    """One alarm for each module whose parameters are frozen and whose buffers moved."""
    moved: dict[str, list[TensorStep]] = {}
    for t in step.tensors.values():
        if t.info.kind == "buffer" and t.frozen and t.moved:
            moved.setdefault(t.info.module, []).append(t)
    for module, buffers in moved.items():
        names = ", ".join(t.name.rpartition(".")[2] for t in buffers)
        first = buffers[0]
        forward = first.reason is Reason.FORWARD
        own = any(t.info.kind == "parameter" and t.info.module == module for t in step.tensors.values())
        whose = "its parameters are frozen" if own else "all around it is frozen"
        statistics = "running_" in names
        yield Alarm(
            "frozen-statistics", "alarm", module or first.name, step.index,
            f"{whose}, but its {'buffers' if len(buffers) > 1 else 'buffer'} moved ({names}): {first.reason}",
            (
                f"{first.info.module_type} ran in train mode, and then every forward pass updates its "
                "running statistics, with or without gradients (no_grad too)"
                if statistics
                else f"the forward pass of {first.info.module_type} writes to it, with or without gradients"
            )
            if forward
            else "something wrote to them in place",
            f"{path(module) if module else 'model'}.eval()  # again after every model.train()"
            + ("" if statistics or not forward else "; helps if its forward asks for the mode"),
        )  # fmt: skip


def never_moved(name: str, past: Past) -> Alarm | None:
    """Say of a trainable tensor that it stayed in every step of its optimizer, from the second one on."""
    last = past.before
    if last is None or past.ever_moved or past.still_steps < 2:
        return None
    if last.frozen is not None or not last.requires_grad:
        return None
    noise = last.reason is Reason.BELOW_RESOLUTION and past.only_noise
    told = _ONLY_NOISE if noise else _STILL.get(last.reason)
    why, cure = told or ("see its reason", "")
    return Alarm(
        "never-moved",
        "alarm" if last.grad == "nonzero" and not noise else "notice",
        name,
        0,
        f"trainable, and still after {past.still_steps} steps ({last.reason})",
        why,
        cure.format(p=path(name), group=last.group) if cure else f"ledger[-1][{name!r}]  # read its facts",
        past.still_steps,
    )


def _alarm(
    code: str, step: Step, t: TensorStep, what: str, cause: str, cure: str, level: Level = "alarm"
) -> Alarm:
    return Alarm(code, level, t.name, step.index, what, cause, cure)


NOISE = 1e-5
"""A gradient this much smaller than its module's largest is rounding noise: float32 keeps seven digits."""

_ONLY_NOISE = (
    "its gradient is rounding noise, a hundred-thousandth of its layer's largest or less: the loss does not "
    "depend on it, as on a bias right before BatchNorm",
    "{p}.requires_grad_(False)  # it changes nothing; or build its layer with bias=False",
)
_STILL = {
    Reason.NO_GRADIENT: (
        "no loss reached it: its gradient was None every time",
        "{p}.requires_grad_(False)  # if it is not meant to train; else use it in the loss",
    ),
    Reason.ZERO_GRADIENT: (
        "its gradient was zero every time",
        "print({p}.grad)  # after backward(): find what multiplies it by zero",
    ),
    Reason.BELOW_RESOLUTION: (
        "its updates are smaller than the spacing of numbers of its size and dtype",
        "optimizer.param_groups[{group}]['lr'] *= 10  # or train the whole model in a wider dtype",
    ),
    Reason.NONFINITE: (
        "its numbers are inf or NaN, and no update changes those",
        "torch.nn.init.normal_({p}, std=0.01)  # or load a checkpoint from before it diverged",
    ),
    Reason.LR_ZERO: (
        "its parameter group has lr = 0",
        "optimizer.param_groups[{group}]['lr'] = 1e-3  # if it is meant to train",
    ),
}
"""Why a tensor never moved, and a cure, by its last reason."""

RULES: tuple[Callable[[Step, TensorStep, Past], Alarm | None], ...] = (
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
