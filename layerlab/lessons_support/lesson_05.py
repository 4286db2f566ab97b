"""The check of lesson 05's exercise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer

from layerlab.ledger import watch
from layerlab.lessons_support.checks import Check
from layerlab.lessons_support.trials import optimizer_of, resnet_and_images
from layerlab.lessons_support.verdict import Verdict
from layerlab.printable import printable
from layerlab.show.words import some

FROZEN = ("conv1", "bn1", "layer1")
HEAD_LR, BODY_LR, DECAY, MOMENTUM = 0.1, 0.01, 0.001, 0.9

MakeOptimizer = Callable[[nn.Module], Optimizer]


def check_groups(make_optimizer: MakeOptimizer) -> Verdict:
    """Look at the groups of the learner's optimizer for ResNet18, and train two steps with it.

    Wanted are conv1, bn1 and layer1 frozen; lr 0.1 for fc and 0.01 for all else; weight decay 0.001 for the
    weights of convolutions and fc, none for biases and norms; SGD with momentum 0.9.

    Parameters
    ----------
    make_optimizer
        Called once with the model; returns the optimizer.
    """
    check = Check("a part frozen, two learning rates, no decay for norms and biases", called={"model": "net"})
    net, x, y = resnet_and_images(32, classes=10)
    parameters = dict(net.named_parameters())
    optimizer = optimizer_of(check, make_optimizer, net, "make_optimizer")
    if optimizer is None:
        return check.verdict()
    if not any(p.requires_grad for p in parameters.values()):
        check.that(False, "", f"everything is frozen, so nothing can train: freeze {', '.join(FROZEN)} alone")
        return check.verdict()

    _look_at_flags(check, parameters)
    _look_at_groups(check, optimizer, parameters)

    def train_two_steps() -> None:
        for _ in range(2):
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()

    with watch(net, optimizer) as ledger:
        check.run(train_two_steps)
    check.stayed(ledger, *(name for name in parameters if not _wanted(name)))
    check.moved(ledger, *(name for name in parameters if _wanted(name)))
    return check.verdict()


def _look_at_flags(check: Check, parameters: Mapping[str, nn.Parameter]) -> None:
    """Require that the frozen part is frozen by its flags, and that nothing else is."""
    wrong = {
        wanted: [name for name, p in parameters.items() if _wanted(name) is wanted is not p.requires_grad]
        for wanted in (False, True)
    }
    check.that(
        not wrong[False] and not wrong[True],
        f"requires_grad is False for {', '.join(FROZEN)} and nothing else",
        "; ".join(
            f"{some(names)} must{'' if wanted else ' not'} require gradients: requires_grad = {wanted}"
            for wanted, names in wrong.items()
            if names
        ),
    )


def _wanted(name: str) -> bool:
    """Whether a parameter shall train."""
    return name.split(".")[0] not in FROZEN


def _look_at_groups(check: Check, optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
    """Compare each trainable parameter's options with those that were asked for."""
    trains = {name: p for name, p in parameters.items() if _wanted(name)}
    times = Counter(id(p) for group in optimizer.param_groups for p in group["params"])
    lost = [name for name, p in trains.items() if not times[id(p)]]
    check.that(
        not lost,
        f"all {len(trains)} tensors that shall train are in the optimizer",
        f"{_are(lost)} in no parameter group: they never train",
    )
    twice = [name for name, p in parameters.items() if times[id(p)] > 1]
    if twice:
        check.that(False, "", f"{_are(twice)} in a group twice: step() updates them twice")
    empty = [at for at, group in enumerate(optimizer.param_groups) if not group["params"]]
    if empty:
        check.that(
            False, "", f"group {empty[0]} is empty: is its condition never true, or its generator used up?"
        )
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    held = {name: groups[id(p)] for name, p in trains.items() if id(p) in groups}
    head = {name for name in trains if name.startswith("fc.")}
    weights = {name for name, p in trains.items() if p.dim() > 1}
    _options(check, held, "lr", HEAD_LR, "fc", head)
    _options(check, held, "lr", BODY_LR, "the rest", trains.keys() - head)
    _options(check, held, "weight_decay", DECAY, "the weights of convolutions and fc", weights)
    _options(check, held, "weight_decay", 0.0, "biases and norms", trains.keys() - weights)
    if isinstance(optimizer, SGD):
        _options(check, held, "momentum", MOMENTUM, "every group", trains.keys())
    else:
        kind = printable(type(optimizer).__name__)
        check.that(False, "", f"the optimizer must be torch.optim.SGD, but is {kind}")


def _options(
    check: Check,
    held: Mapping[str, dict[str, Any]],
    option: str,
    wanted: float,
    who: str,
    names: Collection[str],
) -> None:
    """Require an option of all these parameters, as far as they are in a group."""
    there = {name: held[name].get(option) for name in held if name in names}
    wrong = {name: value for name, value in there.items() if not _is(value, wanted)}
    values = ", ".join(dict.fromkeys(_said(value) for value in wrong.values()))
    label = option.replace("_", " ")
    whose = f"{len(wrong)} of {len(there)}: {some([*wrong])}"
    bad = f"{label} of {who} must be {wanted:g}, but is {values} for {whose}"
    check.that(not wrong, f"{label} of {who} is {wanted:g}", bad)


def _is(value: object, wanted: float) -> bool:
    return isinstance(value, (int, float, torch.Tensor)) and abs(float(value) - wanted) < 1e-9


def _said(value: object) -> str:
    return f"{float(value):.3g}" if isinstance(value, (int, float, torch.Tensor)) else "missing"


def _are(names: Iterable[str]) -> str:
    listed = list(names)
    return f"{some(listed)} {'is' if len(listed) == 1 else 'are'}"
