"""Random labelled images for tests that train."""

import torch


class Data:
    """Random images and labels, the same for the same seed; counts how often a batch was asked for."""

    def __init__(self, examples, seed=0, *, shape=(3, 5, 5), classes=2):
        chance = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(examples, *shape, generator=chance)
        self.labels = torch.randint(0, classes, (examples,), generator=chance)
        self.asked = 0

    def __len__(self):
        return len(self.labels)

    def batch(self, index):
        self.asked += 1
        return self.inputs[index], self.labels[index]
