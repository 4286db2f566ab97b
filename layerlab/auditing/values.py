"""Numbers that are none: NaN and infinity in parameters, buffers, gradients and stored state."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from layerlab.auditing.finding import Finding
from layerlab.auditing.scene import Scene
from layerlab.compare import as_real, grad_state
from layerlab.names import is_sharded


def nonfinite_values(scene: Scene) -> Iterator[Finding]:
    """Parameters with NaN or infinity; buffers with NaN, for a mask may well hold infinities."""
    wrong = [n for n in scene.parameters if _nonfinite(n.tensor)]
    wrong += [n for n in scene.buffers if _nonfinite(n.tensor) and bool(n.tensor.isnan().any())]
    if wrong:
        yield scene.finding(
            "nonfinite-parameter", [n.name for n in wrong],
            "it holds NaN or infinity: the loss will be NaN, and then every parameter that trains",
            _repair(scene, wrong[0].module_name, wrong[0].module),
        )  # fmt: skip


def _repair(scene: Scene, name: str, module: torch.nn.Module) -> str:
    if callable(getattr(module, "reset_parameters", None)):
        return f"{scene.path(name)}.reset_parameters()  # or load a checkpoint from before"
    return f"{scene.path()}.load_state_dict(...)  # a checkpoint from before"


def nonfinite_state(scene: Scene) -> Iterator[Finding]:
    """Momentum and the like with NaN or infinity."""
    for i, optimizer in enumerate(scene.optimizers):
        wrong = [
            p
            for p in scene.members(i)
            if any(isinstance(v, Tensor) and _nonfinite(v) for v in optimizer.state.get(p, {}).values())
        ]
        if wrong:
            variable = scene.optimizer(i)
            yield scene.finding(
                "nonfinite-state", scene.names(wrong),
                f"what {variable} stores of it holds inf or NaN: the next step() with a gradient, however "
                "sound that is, makes the parameter NaN",
                f"for p in list({variable}.state):\n"
                f"    if not all(torch.as_tensor(v).isfinite().all() for v in {variable}.state[p].values()"
                f" if v is not None): {variable}.state.pop(p)",
            )  # fmt: skip


def nonfinite_gradients(scene: Scene) -> Iterator[Finding]:
    """Gradients with NaN or infinity that the next step would apply."""
    for i in range(len(scene.optimizers)):
        wrong = [p for p in scene.members(i) if p.grad is not None and _nonfinite(p.grad)]
        if wrong:
            variable = scene.optimizer(i)
            yield scene.finding(
                "nonfinite-gradient", scene.names(wrong),
                "its gradient holds inf or NaN, and the next step() applies it (at lr = 0 too: 0 times NaN "
                "is NaN), unless zero_grad() comes first",
                f"{variable}.zero_grad()",
            )  # fmt: skip


def _nonfinite(tensor: Tensor) -> bool:
    """Whether any number in a tensor is inf or NaN; False for one without values, or spread over machines."""
    if is_lazy(tensor) or tensor.is_meta or is_sharded(tensor) or tensor.is_quantized:
        return False
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    values = tensor.detach()
    if not values.is_sparse:
        values = as_real(values)
        values = values.float() if values.element_size() < 2 else values
    return grad_state(values)[0] == "nonfinite"


RULES = (nonfinite_values, nonfinite_state, nonfinite_gradients)
