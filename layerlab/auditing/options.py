"""Options of parameter groups that their optimizer does not read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

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
    "decay": "weight_decay",
    "beta": "betas",
    "epsilon": "eps",
}
"""Names that other libraries have for an option."""


def unknown_options(scene: Scene) -> Iterator[Finding]:
    """Options that are named almost like one of the optimizer's: torch takes any, and reads its own."""
    for i, optimizer in enumerate(scene.optimizers):
        for j, group in enumerate(optimizer.param_groups):
            for name, value in options_of(group).items():
                meant = _meant(name, list(optimizer.defaults))
                if meant is None:
                    continue
                place = f"{scene.optimizer(i)}.param_groups[{j}]"
                yield scene.finding(
                    "unknown-option", [scene.group(i, j)],
                    f"{type(optimizer).__name__} does not read {name!r} (given: {value!r}): its {meant} is "
                    f"{group[meant]!r} there",
                    f"{place}[{meant!r}] = {place}.pop({name!r})"
                    + ("  # and build the scheduler anew" if scene.schedulers_of(i) else ""),
                )  # fmt: skip


def _meant(name: str, known: Sequence[str]) -> str | None:
    """The option that a name was meant for; None if it is one, or like none of them."""
    if name in known or name in _OF_SCHEDULERS:
        return None
    if name.lower() in _ELSEWHERE:
        meant = _ELSEWHERE[name.lower()]
        return meant if meant in known else None
    plain = {one.replace("_", ""): one for one in known}
    near = difflib.get_close_matches(name.lower().replace("_", ""), plain, n=1, cutoff=0.8)
    return plain[near[0]] if near else None


RULES = (unknown_options,)
