"""The five settings against loops written out by hand, and against each other."""

import copy
import json

import pytest
import torch
from made_data import Data
from torch import nn
from torch.nn.functional import cross_entropy

from layerlab.experiments.outcome import Outcome
from layerlab.experiments.settings import DOCUMENT, SETTINGS, Recipe, layers
from layerlab.experiments.transfer import Transfer, transfer

RECIPE = Recipe(epochs=3, batch_size=6, lr=0.1, schedule="constant")


class Net(nn.Module):
    """A ResNet in kind."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 2)

    def forward(self, images):
        return self.fc(self.norm(self.conv(images)).relu().mean((2, 3)))


TRAIN, TEST = Data(13, 0), Data(9, 1)
STATISTICS = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
BACKBONE = {"conv.weight", "norm.weight", "norm.bias"}
HEAD = {"fc.weight", "fc.bias"}


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():  # statistics as of a net that was trained
        net.norm.running_mean.normal_()
        net.norm.running_var.uniform_(0.5, 2)
    return net


def by_hand(net, lr_of_backbone, *, in_eval, epochs=3, flag=True):
    """Plain PyTorch: two groups, momentum, shuffled batches."""
    net = copy.deepcopy(net)
    backbone = [*net.conv.parameters(), *net.norm.parameters()]
    groups = [{"params": backbone, "lr": lr_of_backbone}, {"params": net.fc.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    for parameter in backbone:
        parameter.requires_grad = flag
    for epoch in range(1, epochs + 1):
        order = torch.randperm(13, generator=torch.Generator().manual_seed(epoch))
        net.train()
        if in_eval:
            net.norm.eval()
        for index in (order[:6], order[6:]):  # the 13th joins the last six
            optimizer.zero_grad()
            cross_entropy(net(TRAIN.inputs[index]), TRAIN.labels[index]).backward()
            optimizer.step()
    return net.state_dict()


def trained(setting, net, recipe=RECIPE, **options):
    net = copy.deepcopy(net)
    outcome = transfer(setting, net, TRAIN, TEST, recipe, **options)
    return net.state_dict(), outcome


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def moved(net, after):
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, after[name])}


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
@pytest.mark.parametrize(
    ("setting", "lr", "flag"),
    [
        ("scratch", 0.1, True),
        ("fine_tune", 0.1, True),
        ("frozen", 0.0, False),
        ("lr_zero", 0.0, True),
        ("lr_tenth", 0.1 / 10, True),
    ],
)
def test_each_setting_is_the_loop_one_would_write(setting, lr, flag, batchnorm, net):
    recipe = Recipe(epochs=3, batch_size=6, lr=0.1, batchnorm=batchnorm)
    after, outcome = trained(setting, net, recipe)
    stands_still = setting in ("frozen", "lr_zero")
    in_eval = stands_still and batchnorm == "eval"
    assert same(after, by_hand(net, lr, in_eval=in_eval, flag=flag))
    expected = set(HEAD)
    if not in_eval:
        expected |= STATISTICS
    if not stands_still:
        expected |= BACKBONE
    assert moved(net, after) == expected
    assert len(outcome.epochs) == 3


def test_lr_zero_and_frozen_come_to_the_same_head_bit_by_bit(net):
    for batchnorm in ("eval", "train"):
        recipe = Recipe(epochs=3, batch_size=6, lr=0.1, batchnorm=batchnorm)
        assert same(trained("frozen", net, recipe)[0], trained("lr_zero", net, recipe)[0])


def test_cached_features_change_nothing_but_the_time(net):
    (plain, one), (cached, other) = trained("frozen", net), trained("frozen", net, cached=True)
    assert same(plain, cached)
    for a, b in zip(one.epochs, other.epochs, strict=True):
        assert (a.train_loss, a.test_loss, a.test_accuracy) == (b.train_loss, b.test_loss, b.test_accuracy)


class Deep(nn.Module):
    """Three layers to freeze, one after the other."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.relu = nn.ReLU()  # holds nothing: no layer to freeze
        self.second = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.third = nn.Linear(4, 4)
        self.fc = nn.Linear(4, 2)

    def forward(self, images):
        return self.fc(self.third(self.second(self.relu(self.first(images))).mean((2, 3))))


@pytest.mark.parametrize("setting", ["frozen", "lr_zero"])
@pytest.mark.parametrize(
    ("upto", "still"),
    [
        ("first", {"first"}),
        ("second", {"first", "second"}),
        ("third", {"first", "second", "third"}),
        (None, {"first", "second", "third"}),
    ],
)
def test_frozen_up_to_a_layer_all_after_it_trains(setting, upto, still):
    torch.manual_seed(0)
    deep = Deep()
    assert layers(deep) == ["first", "second", "third"]
    before = copy.deepcopy(deep)
    outcome = transfer(setting, deep, TRAIN, TEST, RECIPE, frozen_up_to=upto)
    moves = {name.partition(".")[0] for name in moved(before, deep.state_dict())}
    assert moves == {"first", "second", "third", "fc"} - still
    assert outcome.about["frozen"] == sorted(still)


def test_frozen_up_to_what_makes_no_sense(net):
    for setting, upto, said in (
        ("frozen", "layer1", "frozen_up_to='layer1': choose one of conv, norm"),
        ("fine_tune", "conv", "setting='fine_tune' freezes nothing"),
    ):
        with pytest.raises(ValueError, match=said):
            trained(setting, net, frozen_up_to=upto)
    with pytest.raises(ValueError, match="what comes after it still changes"):
        trained("frozen", net, frozen_up_to="conv", cached=True)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s != "frozen"])
def test_what_does_not_stand_still_is_not_cached(setting, net):
    with pytest.raises(ValueError, match="that stands still"):
        trained(setting, net, cached=True)
    recipe = Recipe(epochs=3, batch_size=6, lr=0.1, batchnorm="train")
    with pytest.raises(ValueError, match="that stands still"):
        trained("frozen", net, recipe, cached=True)


@pytest.mark.parametrize("setting", SETTINGS)
def test_afterwards_nothing_is_frozen(setting, net):
    transfer(setting, net, TRAIN, TEST, RECIPE)
    assert all(p.requires_grad for p in net.parameters())
    assert "train" not in vars(net.norm)
    with pytest.raises(ValueError, match="schedule='linear'"):
        Transfer("frozen", net, TRAIN, TEST, Recipe(3, 6, 0.1, schedule="linear"))
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    ("setting", "cached"), [*((setting, False) for setting in SETTINGS), ("frozen", True)]
)
def test_stopped_and_resumed_it_is_the_same(setting, cached, net, tmp_path):
    whole, outcome = trained(setting, net, cached=cached)
    file = tmp_path / "run.pt"

    class Stop(Exception):
        pass

    def stop(epoch):
        raise Stop

    with pytest.raises(Stop):
        trained(setting, net, cached=cached, save_to=file, after_epoch=stop)
    after, again = trained(setting, net, cached=cached, save_to=file)
    assert same(whole, after)
    for a, b in zip(outcome.epochs, again.epochs, strict=True):
        assert (a.train_loss, a.test_loss, a.lrs) == (b.train_loss, b.test_loss, b.lrs)


def test_another_setting_s_file_is_refused(net, tmp_path):
    trained("fine_tune", net, save_to=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="setting was 'fine_tune' there, here it is 'scratch'"):
        trained("scratch", net, save_to=tmp_path / "run.pt")


def test_the_document_s_schedule_divides_every_group_s_lr_by_ten_after_seven_epochs(net):
    recipe = Recipe(epochs=15, batch_size=16, lr=0.001, schedule="step")
    assert (DOCUMENT.epochs, DOCUMENT.batch_size, DOCUMENT.lr, DOCUMENT.momentum) == (25, 16, 0.001, 0.9)
    assert (DOCUMENT.schedule, DOCUMENT.weight_decay) == ("step", 0)
    _, outcome = trained("lr_tenth", net, recipe)
    lrs = [epoch.lrs for epoch in outcome.epochs]
    assert lrs[6] == (0.0001, 0.001)
    assert lrs[7] == pytest.approx((0.00001, 0.0001))
    assert lrs[14] == pytest.approx((0.000001, 0.00001))
    _, outcome = trained("lr_zero", net, recipe)
    assert {epoch.lrs[0] for epoch in outcome.epochs} == {0.0}


def test_the_cosine_ends_at_zero(net):
    _, outcome = trained("fine_tune", net, Recipe(epochs=4, batch_size=6, lr=0.1, schedule="cosine"))
    lrs = [epoch.lrs[0] for epoch in outcome.epochs]
    assert lrs == pytest.approx([0.1, 0.1 * (2 + 2**0.5) / 4, 0.05, 0.1 * (2 - 2**0.5) / 4])


def test_an_outcome_tells_how_it_came_about_and_goes_through_json(net):
    _, outcome = trained("scratch", net, seed=3, about={"data": "made up"})
    assert isinstance(outcome, Outcome)
    told = json.loads(json.dumps(outcome.as_dict()))
    assert (told["about"]["setting"], told["about"]["seed"], told["about"]["data"]) == (
        "scratch",
        3,
        "made up",
    )
    assert told["about"]["recipe"]["lr"] == 0.1
    assert told["made_with"]["torch"] == torch.__version__.partition("+")[0]
    assert "CPU" in told["made_with"]["hardware"]
    assert [epoch["number"] for epoch in told["epochs"]] == [1, 2, 3]
    assert outcome.best == max(epoch.test_accuracy for epoch in outcome.epochs)
    assert outcome.accuracy == outcome.epochs[-1].test_accuracy


def test_an_unknown_setting_is_refused_by_name(net):
    with pytest.raises(ValueError, match="setting='finetune': choose one of scratch, fine_tune"):
        trained("finetune", net)
