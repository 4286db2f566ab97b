"""The judgements that decide what gets a row of its own: what is surprising, what is alike."""

from __future__ import annotations

from layerlab.record import Reason, TensorStep
from layerlab.show.warn import is_alarmed

UNUSUAL = frozenset(
    {
        Reason.MOMENTUM,
        Reason.WEIGHT_DECAY,
        Reason.OUTSIDE,
        Reason.BELOW_RESOLUTION,
        Reason.NONFINITE,
        Reason.UNKNOWN,
    }
)
"""Reasons that deserve a row of their own."""
_AGAINST = -0.5
"""From this cosine down, a step is said to have gone against its gradient."""


def is_surprising(t: TensorStep, alarmed: frozenset[str]) -> bool:
    """Whether a learner should see this tensor on its own."""
    return (
        is_alarmed(t, alarmed)
        or t.reason in UNUSUAL
        or (t.frozen is not None and t.moved)
        or t.grad == "nonfinite"
        or t.grad_stale
        or t.zero_grad_rows_moved > 0
        or changed_outside_too(t)
        or is_mostly_decay(t)
        or went_backwards(t)
    )


def kind(t: TensorStep, alarmed: frozenset[str]) -> tuple[object, ...]:
    """All that must be equal for two tensors to share a row: everything shown but the numbers."""
    facts = (t.moved, t.reason, t.frozen, t.grad, t.grad_stale, t.training, t.info.kind)
    judged = (changed_outside_too(t), is_mostly_decay(t), went_backwards(t), t.zero_grad_rows_moved > 0)
    return (*facts, *judged, is_alarmed(t, alarmed))


def changed_outside_too(t: TensorStep) -> bool:
    """Changed before the step as well, by something that is neither its reason nor a forward pass."""
    return t.moved_outside and t.reason not in (Reason.OUTSIDE, Reason.FORWARD)


def went_backwards(t: TensorStep) -> bool:
    """Walked against its own gradient, and not just a little."""
    return t.parts is not None and t.parts.gradient > 0 and t.parts.agreement <= _AGAINST


def is_mostly_decay(t: TensorStep) -> bool:
    """Weight decay is the largest part of the step."""
    return t.parts is not None and t.parts.weight_decay > max(t.parts.gradient, t.parts.momentum)


def is_counter(t: TensorStep) -> bool:
    """Whether it counts (``num_batches_tracked``): its Δ is a number, and a ratio would say nothing."""
    return t.info.dtype.removeprefix("torch.").startswith(("int", "uint", "bool"))
