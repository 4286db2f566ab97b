"""Options of parameter groups that their optimizer does not read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from layerlab.auditing.finding import Finding
from layerlab.auditing.scene import Scene
from layerlab.group_options import options_of

_OF_SCHEDULERS = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr")
"""What torch's schedulers write into a group."""
_ELSEWHERE = {
    "learning_rate": "lr",
    "learningrate": "lr",
    "l2": "weight_decay",
    "wd": "weight_decay",
    "beta": "betas",
    "epsilon": "eps",
}
"""Names that other libraries have for an option."""


def unknown_options(scene: Scene) -> Iterator[Finding]:
    """Options that are named almost like one of the optimizer's: torch takes any, and reads its own.

    Only of torch's own optimizers: another one may read what it has no default for.
    """
    for i, optimizer in enumerate(scene.optimizers):
        if not type(optimizer).__module__.startswith("torch.optim"):
            continue
        for j, group in enumerate(optimizer.param_groups):
            for name, value in options_of(group).items():
                meant = _meant(name, list(optimizer.defaults))
                if meant is None or not _alike(value, group.get(meant)):
                    continue
                place = f"{scene.optimizer(i)}.param_groups[{j}]"
                cure = f"{place}[{meant!r}] = {place}.pop({name!r})"
                if scene.schedulers_of(i):
                    start = f"; {place}.pop('initial_lr', None)" if meant == "lr" else ""
                    cure += f"{start}  # and build the scheduler anew"
                yield scene.finding(
                    "unknown-option", [scene.group(i, j)],
                    f"{type(optimizer).__name__} does not read {name!r} (given: {value!r}): its {meant} is "
                    f"{group[meant]!r} there",
                    cure,
                )  # fmt: skip


def _meant(name: str, known: Sequence[str]) -> str | None:
    """The option that a name was meant for; None if it is one, or like none of them."""
    if name in known or name in _OF_SCHEDULERS:
        return None
    if name.lower() in _ELSEWHERE:
        meant = _ELSEWHERE[name.lower()]
        return meant if meant in known else None
    given = name.lower().replace("_", "")
    plain = {one.replace("_", ""): one for one in known if len(one) > 3}
    if any(one in given and one != given for one in plain):
        return None  # weight_decay_mult, say: an option of the user's own about that one
    near = difflib.get_close_matches(given, plain, n=1, cutoff=0.85)
    return plain[near[0]] if near else None


def _alike(given: Any, present: Any) -> bool:
    """Whether one may stand in the place of the other: both numbers, both flags, or as many in a row."""
    if isinstance(given, (tuple, list)) and isinstance(present, (tuple, list)):
        return len(given) == len(present)
    if isinstance(given, bool) or isinstance(present, bool):
        return isinstance(given, bool) and isinstance(present, bool)
    return isinstance(given, (int, float)) and isinstance(present, (int, float, Tensor))


RULES = (unknown_options,)
