"""The README's code for other libraries' loops, and witnesses of what it does, for `test_other_loops`."""

import importlib
import itertools
import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
CODE = re.findall(r"```py\n(.*?)```", README, re.DOTALL)


def library(name):
    """The real library. Only outside CI may it be missing."""
    return importlib.import_module(name) if os.environ.get("CI") else pytest.importorskip(name)


def readme(what, given):
    """Run the README's code that imports ``what`` on what is given; add to that all that it defined."""
    [code] = [code for code in CODE if f"from {what}" in code]
    exec(compile(code, "README.md", "exec"), given)
    return given


class Witness:
    """Copies the bytes of all tensors before each forward pass of a module, and counts these passes.

    ``fails_at`` raises in that pass instead, counted from 0.
    """

    def __init__(self, model, module, fails_at=None):
        self.model, self.fails_at, self.copies = model, fails_at, []
        self.handle = module.register_forward_pre_hook(lambda *_: self.look())

    def look(self):
        if len(self.copies) == self.fails_at:
            raise ArithmeticError("in the forward pass")
        tensors = self.model.state_dict().items()
        self.copies.append({name: t.detach().contiguous().numpy().tobytes() for name, t in tensors})

    def moved(self, batches=1):
        """Which tensors changed in each step of so many batches."""
        self.handle.remove()
        self.fails_at = None
        self.look()
        steps = itertools.pairwise(self.copies[::batches])
        return [{name for name in after if after[name] != before[name]} for before, after in steps]


def record(steps):
    """The facts of each step, exactly."""
    return [
        {
            name: (
                t.moved,
                t.reason,
                t.grad,
                t.grad_max,
                t.delta_norm,
                t.parts,
                t.frozen,
                t.lr,
                t.state_steps,
            )
            for name, t in step.items()
        }
        for step in steps
    ]


def reasons(step):
    return {name: tensor.reason for name, tensor in step.items()}


def same_bits(model, other):
    pairs = zip(model.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == twin and torch.equal(a, b) for (name, a), (twin, b) in pairs)


def hooks(model, optimizers):
    """How many hooks there are on a model and on optimizers (of which there must be some)."""
    assert optimizers
    held = [(m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
    held += [(o._optimizer_step_pre_hooks, o._optimizer_step_post_hooks) for o in optimizers]
    return sum(len(one) for pair in held for one in pair)


def small_net():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


class Batches(torch.utils.data.DataLoader):
    """Shuffled batches of random data, and in ``drawn`` those that were drawn, in their order."""

    def __init__(self, count=4):
        self.drawn = []
        data = torch.utils.data.TensorDataset(torch.randn(8 * count, 4), torch.randint(0, 2, (8 * count,)))
        super().__init__(data, batch_size=8, shuffle=True, collate_fn=self.collate)

    def collate(self, rows):
        self.drawn.append(torch.utils.data.default_collate(rows))
        return self.drawn[-1]
