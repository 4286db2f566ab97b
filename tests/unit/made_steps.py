"""Steps built by hand, for the tests of what is shown."""

from __future__ import annotations

from layerlab.record import Alarm, Parts, Reason, Step, TensorInfo, TensorStep


def tensor(name, reason=Reason.GRADIENT, ratio=0.0, *, kind="parameter", **facts):
    """A `TensorStep` with ordinary facts unless told otherwise; its weights have norm 2."""
    buffer = kind == "buffer"
    info = TensorInfo(
        name, facts.pop("names", (name,)), kind, (4, 3), facts.pop("dtype", "torch.float32"), 12,
        name.rpartition(".")[0], "Linear",
    )  # fmt: skip
    ordinary = {
        "training": True, "requires_grad": not buffer, "frozen": None,
        "grad": "none" if buffer else "nonzero", "grad_max": 0.5, "grad_stale": False,
        "optimizer": None if buffer else 0,
        "group": None if buffer else 0, "lr": None if buffer else 0.1, "weight_decay": None,
        "state_steps": None, "moved": ratio > 0, "moved_outside": False, "delta_norm": 2 * ratio,
        "delta_max": ratio, "weight_norm": 2.0,
    }  # fmt: skip
    return TensorStep(info=info, reason=reason, **(ordinary | facts))


def step(*tensors, index=0, alarms=(), **facts):
    return Step(index, 0, "AdamW", {t.name: t for t in tensors}, alarms=list(alarms), **facts)


FROZEN_BUT_MOVED = Alarm(
    "frozen-but-moved", "alarm", "hidden_task1.weight", 1, "frozen (requires_grad) but moved: momentum",
    "its gradient is a tensor of zeros, not None", "model.hidden_task1.weight.grad = None",
)  # fmt: skip


def two_tasks():
    """The article's three tensors: task 1, then task 2 with hidden_task1 meant to be frozen."""
    return [
        step(
            tensor("hidden_task1.weight", ratio=0.5, parts=Parts(1.0, 0.0, 0.0, 1.0, 12, 12)),
            tensor("hidden_task2.weight", Reason.NO_GRADIENT, grad="none"),
            tensor("output.weight", ratio=0.25, parts=Parts(1.0, 0.0, 0.0, 1.0, 12, 12)),
        ),
        step(
            tensor(
                "hidden_task1.weight", Reason.MOMENTUM, 0.0671, grad="zero", frozen="requires_grad",
                requires_grad=False, parts=Parts(0.0, 0.9, 0.1, 0.0, 12, 12),
            ),
            tensor("hidden_task2.weight", ratio=1.0, parts=Parts(1.0, 0.0, 0.0, 1.0, 12, 12)),
            tensor("output.weight", ratio=1e-3, parts=Parts(0.3, 0.7, 0.0, 0.9, 12, 12)),
            index=1,
            alarms=[FROZEN_BUT_MOVED],
        ),
    ]  # fmt: skip


def network(count, reason=Reason.GRADIENT, ratio=1e-3, **facts):
    """So many tensors, six a module, with names as in ResNet18."""
    return [tensor(f"layer{i // 6}.{i % 6}.weight", reason, ratio, **facts) for i in range(count)]
