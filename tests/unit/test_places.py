"""Places of a freeze; and the rule of what each saves, in operations and bytes counted by hand."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from layerlab.experiments.backward_cost import step_cost
from layerlab.experiments.places import FIRST, LAST, ONE, sweep

BLOCKS, BATCH, WIDTH, FLOAT = 4, 3, 5, 4
EVERYWHERE = {(), (1, 3), (2, 4), *(place for by in sweep(BLOCKS).values() for place in by.values())}


def test_the_places_of_three_blocks():
    assert sweep(3) == {
        FIRST: {1: (1,), 2: (1, 2), 3: (1, 2, 3)},
        LAST: {1: (3,), 2: (2, 3), 3: (1, 2, 3)},
        ONE: {1: (1,), 2: (2,), 3: (3,)},
    }


def test_no_block_is_refused():
    with pytest.raises(ValueError, match="count=0"):
        sweep(0)


@pytest.mark.parametrize("place", sorted(EVERYWHERE), ids=str)
def test_only_what_lies_before_the_first_trainable_block_is_saved_altogether(place):
    blocks = {
        f"block{i}": nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()).requires_grad_(i not in place)
        for i in range(1, BLOCKS + 1)
    }
    net = nn.Sequential(OrderedDict(blocks | {"head": nn.Linear(WIDTH, 1)}))
    x = torch.ones(BATCH, WIDTH)
    cost = step_cost(net, torch.optim.SGD(net.parameters(), lr=0.1), lambda net: net(x).sum())

    train = [i for i in range(1, BLOCKS + 1) if i not in place]
    product, head = 2 * BATCH * WIDTH * WIDTH, 2 * BATCH * WIDTH
    of_weights = len(train) * product + head
    of_inputs = (BLOCKS - train[0]) * product + head if train else 0
    assert cost.backward == of_weights + of_inputs

    # Kept: the input of the first layer that trains (for its weight), and every Tanh's output from there on,
    # which is the next layer's input too.
    first = train[0] if train else BLOCKS + 1
    assert cost.activations == FLOAT * BATCH * WIDTH * (1 + BLOCKS - (first - 1))
