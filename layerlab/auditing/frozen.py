"""What is frozen, and would move all the same: by a gradient that is there, or by what is stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from layerlab.auditing.finding import Finding
from layerlab.auditing.scene import Scene
from layerlab.compare import grad_state, same_bits
from layerlab.names import Named, unwrapped
from layerlab.replay import Replay, Sample, Without

_ZEROS = "its gradient is a tensor of zeros, not None: step() does not skip it, and"


def gradients_of_frozen(scene: Scene) -> Iterator[Finding]:
    """Gradients that are still there: the optimizer's next step, replayed on clones, tells what they do."""
    late: list[str] = []
    zero: dict[str, list[str]] = defaultdict(list)
    kept: list[str] = []
    for named in scene.parameters:
        if named.tensor.requires_grad or named.tensor.grad is None:
            continue
        state, _ = grad_state(named.tensor.grad)
        places = scene.held.get(id(named.tensor), [])
        causes = [_mover(scene.optimizers[i], named.tensor) for i in sorted({i for i, _ in places})]
        moved_by = [cause for cause in causes if cause]
        if not moved_by:
            kept += [named.name] if state != "zero" else []
        elif state == "zero":
            zero[moved_by[0]].append(named.name)
        else:
            late.append(named.name)
    if late:
        yield scene.finding(
            "frozen-too-late", late,
            "the flag stops new gradients, but this one is already there: the next step() applies it, unless "
            "a zero_grad() that leaves None comes first",
            _clear(scene, late),
        )  # fmt: skip
    for cause, names in zero.items():
        effect = f"{_ZEROS} {cause} moves it in every step() until it is None"
        yield scene.finding("frozen-zero-gradient", names, effect, _clear(scene, names))
    if kept:
        yield scene.finding(
            "frozen-gradient-kept", kept,
            "no step() applies this old gradient, but it takes memory, and clip_grad_norm_ of all parameters "
            "counts it: the others are clipped to less",
            _clear(scene, kept),
        )  # fmt: skip


def _mover(optimizer: Optimizer, parameter: Tensor) -> str:
    """What of the next step moves this parameter with the gradient that it has; empty if nothing does."""

    def moves(without: Without) -> bool:
        return not same_bits(replay.step(without)[0], parameter.detach())

    try:
        replay = Replay(optimizer, [Sample(parameter)])
        if not moves(Without()):
            return ""
        if not moves(Without(weight_decay=True)):
            return "weight decay"
        by_itself = moves(Without(weight_decay=True, state=True))
        return f"{type(optimizer).__name__} itself" if by_itself else "stored momentum"
    except Exception:  # an optimizer that cannot be replayed (LBFGS): it may move it, so it is told
        return "the optimizer"


def _clear(scene: Scene, names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{scene.path(names[0])}.grad = None  # after freezing, before step()"
    return (
        f"for p in {scene.path()}.parameters():\n"
        "    if not p.requires_grad: p.grad = None  # after freezing, before step()"
    )


def stale_state(scene: Scene) -> Iterator[Finding]:
    """State of a frozen parameter that will act when it is released."""
    found: dict[tuple[int, str], list[Named]] = defaultdict(list)
    for named in scene.parameters:
        if scene.frozen_by(named.tensor) not in ("requires_grad", "grad_none"):
            continue
        for i in sorted({i for i, _ in scene.held.get(id(named.tensor), [])}):
            keys = [key for key, value in _own_state(scene.optimizers[i], named.tensor) if _any(value)]
            if keys:
                found[i, ", ".join(keys)].append(named)
    for (i, kept), parameters in found.items():
        variable = scene.optimizer(i)
        several = len(parameters) > 3 and not any(named.tensor.requires_grad for named in parameters)
        paths = ", ".join(scene.path(named.name) for named in parameters)
        cure = f"for p in [{paths}]: {variable}.state.pop(p, None)"
        if several:
            cure = f"for p in list({variable}.state):\n    if not p.requires_grad: {variable}.state.pop(p)"
        yield scene.finding(
            "stale-momentum", [named.name for named in parameters],
            f"{variable} keeps {kept} from before the freeze: nothing moves while it is frozen, but the "
            "first steps after its release also follow the old way",
            cure + "  # when releasing",
        )  # fmt: skip


def _own_state(optimizer: Optimizer, parameter: Tensor) -> Iterator[tuple[str, Tensor]]:
    for key, value in optimizer.state.get(parameter, {}).items():
        if isinstance(value, Tensor) and value.shape == parameter.shape and key != "step":
            yield key, value


def _any(value: Tensor) -> bool:
    return not value.is_meta and bool(value.detach().any())


def lbfgs_memory(scene: Scene) -> Iterator[Finding]:
    """LBFGS moves all of its parameters along remembered directions, whatever their flags and gradients."""
    for i, optimizer in enumerate(scene.optimizers):
        if not isinstance(optimizer, LBFGS):
            continue
        members = optimizer.param_groups[0]["params"]
        state = optimizer.state.get(members[0], {}) if members else {}
        memory = [state.get("d"), *(state.get("old_dirs") or []), *(state.get("old_stps") or [])]
        names: list[str] = []
        start = 0
        for parameter in members:
            end = start + parameter.numel() * (2 if torch.is_complex(parameter) else 1)
            if not parameter.requires_grad and any(d is not None and _any(d[start:end]) for d in memory):
                names += scene.names([parameter])
            start = end
        if names:
            variable = scene.optimizer(i)
            yield scene.finding(
                "lbfgs-frozen", names,
                f"{variable} (LBFGS) remembers directions from when it trained, and moves it along them: "
                "neither the flag nor grad = None stops that",
                f"{variable} = torch.optim.LBFGS([p for p in {scene.path()}.parameters() if p.requires_grad])"
                "  # anew, after freezing",
            )  # fmt: skip


def tied_weights(scene: Scene) -> Iterator[Finding]:
    """One tensor under several names: it trains or is frozen in all of these places."""
    for named in scene.parameters:
        if len(named.names) < 2:
            continue
        around = {name: _around(scene, name, named.tensor) for name in named.names}
        if named.tensor.requires_grad:
            frozen = [name for name, flag in around.items() if flag is False]
            trained = [name for name in named.names if name not in frozen]
            if frozen and trained:
                yield scene.finding(
                    "tied-weight", named.names,
                    f"these are one tensor: as {trained[0]} it trains, and so {frozen[0]} moves with it, "
                    "though all around that is frozen",
                    f"{scene.assigned(trained[0], _copy(scene, named))}\n"
                    f"{scene.path(frozen[0])}.requires_grad_(False)  # untied: build the optimizer anew",
                )  # fmt: skip
        elif [name for name, flag in around.items() if flag] and not all(around.values()):
            free = next(name for name, flag in around.items() if flag)
            yield scene.finding(
                "tied-weight", named.names,
                f"these are one tensor, and it is frozen: {free} stays as it is, though all around it trains",
                f"{scene.assigned(free, _copy(scene, named))}  # untied: build the optimizer anew",
                level="note",
            )  # fmt: skip


def _copy(scene: Scene, named: Named) -> str:
    return f"torch.nn.Parameter({scene.path(named.name)}.detach().clone())"


def _around(scene: Scene, name: str, tensor: Tensor) -> bool | None:
    """Whether what is nearest to a tensor trains (True), is frozen (False), or neither is true (None)."""
    every = scene.bare.named_modules(remove_duplicate=False)
    holders = {unwrapped(name): m for name, m in every}
    owner = name.rpartition(".")[0]
    while owner:
        others = {p.requires_grad for p in holders[owner].parameters() if p is not tensor}
        if others:
            return others.pop() if len(others) == 1 else None
        owner = owner.rpartition(".")[0]
    return None


RULES = (gradients_of_frozen, stale_state, lbfgs_memory, tied_weights)
