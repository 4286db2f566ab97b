"""A small net with BatchNorm, and gradual unfreezing by hand in plain PyTorch."""

import torch
from torch import nn

PARTS = ("layer1", "layer2", "layer3")
"""What may be frozen; fc trains from the start."""
EPOCHS = 6
LR = 0.1


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.layer2 = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False))
        self.layer3 = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.layer3(torch.relu(self.layer2(torch.relu(self.layer1(x))))))


def new_net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=LR),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=LR, momentum=0.9),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=LR),
}
LAYOUTS = ("only what trains", "groups of their own", "one group", "named", "weights and biases")


def build(kind, net, layout, later=PARTS):
    """An optimizer of a net, its parameters in groups in one of the `LAYOUTS`."""
    make = OPTIMIZERS[kind]
    trains = [p for name, p in net.named_parameters() if name.split(".")[0] not in later]
    if layout == "only what trains":
        return make(trains)
    if layout == "groups of their own":
        parts = [list(getattr(net, part).parameters()) for part in later]
        return make([{"params": trains}, *({"params": part, "lr": 0.0} for part in parts)])
    if layout == "weights and biases":
        weights = [p for p in net.parameters() if p.dim() > 1]
        return make([{"params": weights}, {"params": [p for p in net.parameters() if p.dim() == 1]}])
    return make(net.named_parameters() if layout == "named" else net.parameters())


def train_epoch(net, optimizer, epoch):
    """Two steps on batches that depend on the epoch alone."""
    numbers = torch.Generator().manual_seed(epoch)
    for _ in range(2):
        x = torch.randn(5, 3, generator=numbers)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), (x[:, 0] > 0).long()).backward()
        optimizer.step()


def by_hand(kind, plan, make_scheduler=None, epochs=EPOCHS):
    """Unfreeze gradually with nothing but PyTorch.

    The plan is ``{epoch: {module: lr}}``. Frozen: the flag, and BatchNorm in eval mode. Released: the flag,
    and ``add_param_group``.
    """
    net = new_net()
    frozen = [part for released in plan.values() for part in released]
    optimizer = build(kind, net, "only what trains", frozen)
    for part in frozen:
        getattr(net, part).requires_grad_(False)
    scheduler = make_scheduler(optimizer) if make_scheduler else None
    for epoch in range(epochs):
        for part, lr in plan.get(epoch, {}).items():
            getattr(net, part).requires_grad_(True)
            optimizer.add_param_group({"params": getattr(net, part).parameters(), "lr": lr})
            frozen.remove(part)
        net.train()
        for part in frozen:
            getattr(net, part).eval()
        train_epoch(net, optimizer, epoch)
        if scheduler is not None:
            scheduler.step()
    return net, optimizer


def other_bits(one, other):
    """The names of the tensors in which two nets differ in any bit."""
    pairs = zip(one.state_dict().items(), other.state_dict().values(), strict=True)
    return [name for (name, a), b in pairs if not torch.equal(a, b)]


def stored(net, optimizer):
    """What the optimizer keeps of each parameter, by name."""
    return {
        name: {key: torch.as_tensor(value).tolist() for key, value in optimizer.state.get(p, {}).items()}
        for name, p in net.named_parameters()
    }
