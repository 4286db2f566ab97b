"""A small net with all that makes a run hard to repeat, its data, and a `begin` for `TrainLab`."""

import torch
from torch import nn

from layerlab.experiments.settings import Recipe
from layerlab.experiments.transfer import Transfer, transfer

LAYERS = ("first", "second")
RECIPE = Recipe(epochs=4, batch_size=5, lr=0.1, schedule="step", test_every=2)
STEPS = 3  # 13 examples: 5, 5 and 3


class Net(nn.Module):
    """BatchNorm and Dropout, and a layer that can be told to raise."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Dropout(0.3))
        self.fc = nn.Linear(5, 2)
        self.passes = 0
        self.raise_at = None

    def forward(self, inputs):
        self.passes += self.training
        if self.passes == self.raise_at:
            raise ArithmeticError("<b>no</b> such number")
        return self.fc(self.second(self.first(inputs)))


class Data:
    def __init__(self, examples, seed):
        chance = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(examples, 6, generator=chance)
        self.labels = (self.inputs.sum(1) > 0).long()
        self.threads = set()

    def __len__(self):
        return len(self.labels)

    def batch(self, index):
        self.threads.add(torch.get_num_threads())
        return self.inputs[index], self.labels[index]


def fresh(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


class Bench:
    """Gets runs ready, and keeps what a `TrainLab` lets go of: the models."""

    def __init__(self, recipe=RECIPE):
        self.recipe = recipe
        self.models = []
        self.raise_at = None
        self.train, self.test = Data(13, 0), Data(9, 1)

    def __call__(self, setting, frozen_up_to, lr, per_class, seed):
        model = fresh(seed)
        model.raise_at = self.raise_at
        self.models.append(model)
        return Transfer(
            setting, model, self.train, self.test, self._with(lr), seed=seed, frozen_up_to=frozen_up_to
        )

    def _with(self, lr):
        return Recipe(**{**vars(self.recipe), "lr": lr})

    def at_one_go(self, setting, frozen_up_to=None, *, lr=0.01, seed=0, epochs=None):
        """The same run by the function that the experiments use: its model and its epochs."""
        model = fresh(seed)
        recipe = Recipe(**{**vars(self._with(lr)), "epochs": epochs or self.recipe.epochs})
        outcome = transfer(
            setting, model, self.train, self.test, recipe, seed=seed, frozen_up_to=frozen_up_to
        )
        return model, outcome.epochs


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    one, other = (x if isinstance(x, dict) else x.state_dict() for x in (one, other))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def figures(epochs):
    """All of some epochs but the seconds."""
    return [(e.number, e.train_loss, e.train_accuracy, e.test_loss, e.test_accuracy, e.lrs) for e in epochs]


def is_left_alone(model):
    """Nothing is frozen, kept in eval mode, or watched any more."""
    hooks = [
        hooks
        for module in model.modules()
        for name, hooks in vars(module).items()
        if "hooks" in name and isinstance(hooks, dict)
    ]
    return (
        not any(hooks)
        and all(parameter.requires_grad for parameter in model.parameters())
        and not any("train" in vars(module) for module in model.modules())
    )
