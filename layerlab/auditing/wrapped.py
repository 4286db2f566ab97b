"""DistributedDataParallel decides which gradients it averages when it wraps a model, once."""

from __future__ import annotations

from collections.abc import Iterator

from torch.nn.parallel import DistributedDataParallel

from layerlab.auditing.finding import Finding
from layerlab.auditing.scene import Scene


def wrapper(scene: Scene) -> DistributedDataParallel | None:
    """The DistributedDataParallel around the model, if there is one."""
    return next((m for m in scene.model.modules() if isinstance(m, DistributedDataParallel)), None)


def frozen_around_wrapping(scene: Scene) -> Iterator[Finding]:
    """Compare what is trainable now with what was when the model was wrapped."""
    ddp = wrapper(scene)
    if ddp is None:
        return
    known = _averaged(ddp)
    frozen = [n for n in scene.parameters if not n.tensor.requires_grad]
    waits = not ddp.find_unused_parameters
    anew = (
        f"{scene.wrapped()} = torch.nn.parallel.DistributedDataParallel({scene.path()})  # after every change"
    )
    if known is None:
        if frozen and waits:
            yield scene.finding(
                "ddp-unseen", [n.name for n in frozen],
                "fine if it was frozen before wrapping. Frozen after: an error at the forward pass after the "
                "next, and one step that is not the same on all ranks; this version of torch does not show "
                "which",
                anew,
            )  # fmt: skip
        return
    after = [n.name for n in frozen if id(n.tensor) in known]
    if after and waits:
        yield scene.finding(
            "ddp-frozen-after", after,
            "it was trainable when the model was wrapped, so DistributedDataParallel waits for its gradient "
            "in vain: this step's gradients are not averaged and the ranks part; the next forward "
            'pass raises "Expected to have finished reduction", and after a last step nothing says so',
            anew,
        )  # fmt: skip
    ignored = set(getattr(ddp, "parameters_to_ignore", ()))
    released = [
        n.name for n in scene.parameters
        if n.tensor.requires_grad and id(n.tensor) not in known and ignored.isdisjoint(n.names)
    ]  # fmt: skip
    if released:
        yield scene.finding(
            "ddp-released-after", released,
            "it was frozen when the model was wrapped, so its gradient is never averaged: each rank trains "
            "its own, without an error, and the ranks part",
            anew,
        )  # fmt: skip


def _averaged(ddp: DistributedDataParallel) -> set[int] | None:
    """The parameters whose gradients it averages, by identity; None where torch does not show them."""
    try:
        return {id(p) for bucket in ddp.reducer._get_zeros_like_grad_buckets() for p in bucket.parameters()}
    except (AttributeError, RuntimeError):
        return None


RULES = (frozen_around_wrapping,)
