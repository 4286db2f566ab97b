"""The check of lesson 07's exercise: a body that truly stands still."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from layerlab.compare import same_bits
from layerlab.ledger import watch
from layerlab.lessons_support.checks import Check
from layerlab.lessons_support.trials import optimizer_of, without_gradient
from layerlab.lessons_support.verdict import Verdict
from layerlab.modes import in_eval_mode
from layerlab.training.machine import Chance

WORDS, WIDTH, STEPS = 10, 6, 3

Prepare = Callable[[nn.Module], Optimizer]
TrainMode = Callable[[nn.Module], object]


class WordNet(nn.Module):
    """Guesses a word from a word: an embedding, a layer, BatchNorm and Dropout, and a head that is tied."""

    def __init__(self) -> None:
        super().__init__()
        words, head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        head.weight = words.weight
        layers = OrderedDict(
            words=words, mix=nn.Linear(WIDTH, WIDTH), norm=nn.BatchNorm1d(WIDTH), drop=nn.Dropout(0.3)
        )
        self.body: nn.Module = nn.Sequential(layers)
        self.head = head

    @property
    def embedding(self) -> nn.Parameter:
        """The body's first tensor."""
        return self.body.get_parameter("words.weight")

    def forward(self, words: Tensor) -> Tensor:
        """Logits of the next word."""
        logits: Tensor = self.head(self.body(words))
        return logits


def check_still_body(prepare: Prepare, train_mode: TrainMode) -> Verdict:
    """Train a `WordNet` for three steps with its body frozen the learner's way, and look for what moved.

    Parameters
    ----------
    prepare
        Called once with the model; freezes its body, unties its head and returns the optimizer.
    train_mode
        Called with the model before each step.
    """
    check = Check("a body that stands still, a head that trains", called={"model": "net"})
    with Chance(0):
        net = WordNet()
        batches = [(torch.randint(WORDS, (16,)), torch.randint(WORDS, (16,))) for _ in range(STEPS)]
        _check(check, net, batches, prepare, train_mode)
    return check.verdict()


def _check(
    check: Check,
    net: WordNet,
    batches: list[tuple[Tensor, Tensor]],
    prepare: Prepare,
    train_mode: TrainMode,
) -> None:
    old = net.embedding.detach().clone()
    before = _eval_features(net)
    optimizer = optimizer_of(check, prepare, net, "prepare")
    if optimizer is None:
        return
    start = net.head.weight.detach().clone()
    if not any(p.requires_grad for p in net.parameters()):
        check.that(False, "", "the head is frozen too, so nothing can train: freeze the body alone")
        return

    repeats: list[bool] = []

    def train_one_step(words: Tensor, following: Tensor) -> None:
        with torch.no_grad():
            repeats.append(same_bits(net.body(words), net.body(words)))
        optimizer.zero_grad()
        cross_entropy(net(words), following).backward()
        optimizer.step()

    with watch(net, optimizer) as ledger:
        for words, following in batches:
            check.run(train_mode, net)
            check.run(train_one_step, words, following)
    _check_tie(check, net, start, old)
    parameters = [f"body.{name}" for name, _ in net.body.named_parameters()]
    check.stayed(ledger, *parameters, label="parameters")
    check.stayed(ledger, *(f"body.{name}" for name, _ in net.body.named_buffers()), label="statistics")
    check.that(
        lambda: len(repeats) == STEPS and all(repeats),
        "while training, the body gives the same output for the same input: its Dropout is off",
        "while training, the body gives two outputs for one input: its Dropout still draws. It follows the "
        "mode alone: net.body.eval(), after every net.train()",
    )
    if net.head.weight is not net.embedding:
        check.moved(ledger, "head.weight", "head.bias")
    check.that(
        lambda: without_gradient(ledger, parameters, STEPS),
        "no gradient is computed for the body",
        "gradients are computed for the body: backward() works for nothing. Set requires_grad to False",
    )
    check.that(
        lambda: same_bits(before, _eval_features(net)),
        "in eval mode the body computes what it did before, bit for bit",
        "in eval mode the body computes something else than before",
    )


def _check_tie(check: Check, net: WordNet, start: Tensor, old: Tensor) -> None:
    """Whether the head has a weight of its own, in memory of its own, that began as the embedding's."""
    head, words = net.head.weight, net.embedding
    if head is words:
        check.that(
            False,
            "",
            "head.weight is still the embedding's tensor: freezing one freezes the other. Give the head a "
            "copy, before the optimizer is built: net.head.weight = "
            "nn.Parameter(net.body.words.weight.detach().clone())",
        )
        return
    check.that(
        head.data_ptr() != words.data_ptr(),
        "head.weight is a tensor of its own",
        "head.weight is a new Parameter over the embedding's memory: what trains one moves the other. "
        "Copy the numbers too, with .clone()",
    )
    check.that(
        same_bits(start, old),
        "head.weight began as the embedding's numbers",
        "head.weight must begin as the embedding's numbers, but began as others",
    )


def _eval_features(net: WordNet) -> Tensor:
    """What the body makes of every word in eval mode; each module's mode is put back."""
    with in_eval_mode(net), torch.no_grad():
        features: Tensor = net.body(torch.arange(WORDS))
    return features
