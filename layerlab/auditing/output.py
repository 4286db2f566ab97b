"""What the model ends in, beside what the loss does itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerlab.auditing.finding import Finding, Level
from layerlab.auditing.scene import Scene

_ENDS = {
    nn.Softmax: "softmax",
    nn.Softmax2d: "softmax",
    nn.LogSoftmax: "log_softmax",
    nn.Sigmoid: "sigmoid",
}
_FUNCTIONS: dict[Any, str] = {
    F.cross_entropy: "cross_entropy",
    F.nll_loss: "nll_loss",
    F.binary_cross_entropy_with_logits: "binary_cross_entropy_with_logits",
}
_LOSSES = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.NLLLoss: "nll_loss",
    nn.BCEWithLogitsLoss: "binary_cross_entropy_with_logits",
}
_TAKES_LOGITS = (
    "applies {inner} itself: on probabilities the loss can neither reach 0 nor grow, and its "
    "gradients are smaller"
)
_CLASHES: dict[tuple[str, str], tuple[Level, str]] = {
    ("softmax", "cross_entropy"): ("error", _TAKES_LOGITS.format(inner="log_softmax")),
    ("sigmoid", "binary_cross_entropy_with_logits"): ("error", _TAKES_LOGITS.format(inner="a sigmoid")),
    ("log_softmax", "cross_entropy"): (
        "note",
        "applies log_softmax itself: twice is once, and computed twice",
    ),
    ("softmax", "nll_loss"): (
        "error",
        "takes log-probabilities: of probabilities it is no likelihood, and negative",
    ),
}
"""What a model's end means to a loss, where the two do not go together."""


def end_and_loss(scene: Scene) -> Iterator[Finding]:
    """A softmax (or sigmoid) at the end of a model, and a loss that applies its own."""
    name, module, certain = _last(scene)
    end = next((word for kind, word in _ENDS.items() if isinstance(module, kind)), None)
    if module is None or end is None:
        return
    loss = _name_of(scene.loss) or next((told for _, m in scene.modules if (told := _name_of(m))), None)
    kind = type(module).__name__
    identity = scene.assigned(name, "torch.nn.Identity()")
    cure = f"{identity}  # and {end} where you need probabilities"
    if loss is None and end == "softmax" and scene.loss is None:
        yield scene.finding(
            "double-softmax", [name],
            f"{kind} stands last in the model: right for a loss that takes probabilities; cross_entropy "
            "takes the numbers before it, and applies log_softmax itself",
            cure,
            level="note",
        )  # fmt: skip
    elif loss is not None and (end, loss) in _CLASHES:
        level, why = _CLASHES[end, loss]
        if level == "error" and not certain:
            level = "warning"
        last = "the model ends in" if certain else "listed last in the model is"
        yield scene.finding("double-softmax", [name], f"{last} {kind}, and {loss} {why}", cure, level=level)


def output_and_loss(scene: Scene, outputs: Sequence[Tensor]) -> Iterator[Finding]:
    """Probabilities along dimension 1 on the given batch, from a softmax in ``forward``, and such a loss.

    A model with several outputs is passed over: which of them the loss gets is not known.
    """
    loss = _name_of(scene.loss)
    if (
        loss not in ("cross_entropy", "nll_loss")
        or len(outputs) != 1
        or any(True for _ in end_and_loss(scene))
    ):
        return
    output = outputs[0].detach()
    plain = output.layout is torch.strided and output.is_floating_point() and output.numel() > 0
    if not plain or output.dim() < 2 or output.size(1) < 2:
        return
    sums = output.sum(1)
    if not ((output >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-2)):
        return
    _, why = _CLASHES["softmax", loss]
    yield scene.finding(
        "double-softmax", [type(scene.bare).__name__],
        f"its output on the given batch is probabilities (none below 0, sums of 1), and {loss} {why}",
        "# let forward() return what comes before its softmax; or, for plain class labels:\n"
        "loss = lambda p, y: torch.nn.functional.nll_loss(p.clamp_min(1e-8).log(), y)",
        level="warning",
    )  # fmt: skip


def _last(scene: Scene) -> tuple[str, nn.Module | None, bool]:
    """The module listed last, through Sequentials; and whether it surely computes the output."""
    name, module, certain = "", scene.bare, True
    while True:
        inner = [(n, m) for n, m in module.named_children() if _name_of(m) is None]
        if not inner or not (isinstance(module, nn.Sequential) or module is scene.bare):
            return name, (module if name else None), certain
        certain = certain and isinstance(module, nn.Sequential)
        last, module = inner[-1]
        name = f"{name}.{last}" if name else last


def _name_of(loss: Any) -> str | None:
    if isinstance(loss, nn.Module):
        return next((word for kind, word in _LOSSES.items() if isinstance(loss, kind)), None)
    return next((word for function, word in _FUNCTIONS.items() if loss is function), None)


RULES = (end_and_loss,)
