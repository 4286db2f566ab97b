"""Lesson 08: the listing it shows is the class it runs; its check names what is wrong with a repair."""

import ast
import inspect
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import layerlab as ll
from layerlab.experiments.layer_adaptive import LayerAdaptiveLR
from layerlab.lessons_support.lesson_08 import (
    accuracy_chart,
    check_repaired,
    compare_guesses,
    factor_chart,
    ratio_chart,
)

LESSON = Path(__file__).resolve().parents[2] / "lessons" / "08_layer_adaptive.ipynb"


def bare(source):
    """A class's syntax tree without types and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if isinstance(node, ast.FunctionDef):
                node.returns = None
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:]
    return ast.dump(tree)


def test_the_lesson_shows_the_class_that_it_runs():
    cells = json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    (text,) = (text for text in texts if "class LayerAdaptiveLR" in text)
    listing = text.split("```python\n")[1].split("```")[0]
    assert bare(listing) == bare(inspect.getsource(LayerAdaptiveLR))


class Repair(torch.optim.Adam):
    """A right repair; each of the wrong ones below differs in one thing."""

    def step(self, closure=None):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["step"] += 1
                m = state["m"].mul_(beta1).add_(p.grad, alpha=1 - beta1)
                v = state["v"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                self.move(p.data, m, v, state["step"], group)

    def move(self, w, m, v, t, group):
        m, v = m / (1 - group["betas"][0] ** t), v / (1 - group["betas"][1] ** t)
        factor = (m.abs() / (v.sqrt() + group["eps"])).mean().item()
        w.mul_(1 - group["lr"] * group["weight_decay"]).add_(m, alpha=-group["lr"] * factor)


class OnlyTheFirstMean(Repair):
    def move(self, w, m, v, t, group):
        super().move(w, m, v * (1 - group["betas"][1] ** t), t, group)


class InPlace(Repair):
    def move(self, w, m, v, t, group):
        m.div_(1 - group["betas"][0] ** t)
        v.div_(1 - group["betas"][1] ** t)
        factor = (m.abs() / (v.sqrt() + group["eps"])).mean().item()
        w.mul_(1 - group["lr"] * group["weight_decay"]).add_(m, alpha=-group["lr"] * factor)


class Growth(Repair):
    def move(self, w, m, v, t, group):
        super().move(w, m, v, t, group | {"weight_decay": -group["weight_decay"]})


class DecayAfter(Repair):
    def move(self, w, m, v, t, group):
        super().move(w, m, v, t, group | {"weight_decay": 0.0})
        w.mul_(1 - group["lr"] * group["weight_decay"])


class NoDecay(Repair):
    def move(self, w, m, v, t, group):
        super().move(w, m, v, t, group | {"weight_decay": 0.0})


class Sorted(Repair):
    def __init__(self, params, **options):
        super().__init__(params, **options)
        self.param_groups = sorted(self.param_groups, key=lambda group: id(group["params"][0]))


class Misspelt(Repair):
    def move(self, w, m, v, t, group):
        w.add_(m, alpha=-group["learning_rate"])


def wrong(verdict):
    return [line.text for line in verdict.lines if not line.ok]


def test_a_right_repair_passes():
    verdict = check_repaired(Repair)
    assert verdict.passed
    assert verdict.lines[0].text == "Repair ran to its end"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (LayerAdaptiveLR, ["step 1 is 0.316 times that", "must become 0.469, -0.938, 1.88", "another order"]),
        (OnlyTheFirstMean, ["step 1 is 31.6 times that"]),
        (InPlace, ["step 2 is"]),
        (Growth, ["but became 0.531, -1.06, 2.12"]),
        (DecayAfter, ["decay the weights before the step"]),
        (NoDecay, ["but became 0.5, -1, 2: p.data.mul_"]),
        (Sorted, ["another order"]),
        (torch.optim.AdamW, ["step 1 is 1, 0.333, 2 times that, for the three weights"]),
        (Misspelt, ["raised KeyError: 'learning_rate', at line"]),
        (lambda params, **options: None, ["raised AttributeError"]),
    ],
)
def test_each_mistake_gets_its_own_words(make, said):
    messages = wrong(check_repaired(make))
    assert len(messages) == len(said)
    for message, words in zip(messages, said, strict=True):
        assert words in message


def test_guesses_stand_beside_what_was_measured():
    shown = repr(compare_guesses("times", {"a": 80, "b": 1}, {"a": 100.0, "b": 100.0, "c": 2.0}))
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["times:", "1", "of", "3", "right"]
    assert lines[2:] == [["a", "80", "100", "yes"], ["b", "1", "100", "no"], ["c", "–", "2", "no"]]
    with pytest.raises(ValueError, match="'d' is not asked about; asked: a"):
        compare_guesses("times", {"d": 1}, {"a": 1.0})


def test_the_factor_is_drawn_and_said():
    chart = factor_chart([3.0, 6.0, 2.0])
    assert "3 at step 1, at most 6 (step 2), 2 at step 3" in chart.words
    assert chart._repr_png_().startswith(b"\x89PNG")


def test_ratios_are_drawn_as_multiples_of_one_tensor():
    net = nn.Linear(1, 1)
    nn.init.constant_(net.weight, 2.0)
    nn.init.constant_(net.bias, 0.5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    with ll.watch(net, optimizer) as ledger:
        net(torch.tensor([[3.0]])).sum().backward()  # gradients 3 and 1
        optimizer.step()
    chart = ratio_chart({"SGD": ledger[0]}, beside="bias")  # ratios 0.75 and 1
    assert "SGD 0.75 to 1" in chart.words
    assert list(chart.figure.axes[0].lines[0].get_xdata()) == pytest.approx([0.75, 1.0])
    assert [label.get_text() for label in chart.figure.axes[0].get_yticklabels()] == ["weight", "bias"]


def test_accuracies_are_drawn_by_learning_rate_and_not_said():
    chart = accuracy_chart({"net": {"SGD": {0.1: [0.5, 0.7], 1.0: [0.1, 0.1]}}})
    drawn = chart.figure.axes[0].lines
    assert list(drawn[0].get_ydata()) == pytest.approx([60, 10])
    assert list(drawn[1].get_ydata()) == pytest.approx([50, 70])
    assert not any(letter.isdigit() for letter in chart.words)
