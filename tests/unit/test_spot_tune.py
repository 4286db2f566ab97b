"""A learned route for each image: the choice and its gradient by formula, the copies, the bookkeeping."""

import copy
import json
from statistics import mean, stdev

import pytest
import torch
from torch.nn.functional import cross_entropy

from layerlab.data.digits import target
from layerlab.experiments import spot_tune, spot_tune_sweep
from layerlab.experiments.recorded import recorded
from layerlab.experiments.spot_tune import METHODS, TASKS, Result, learn, model_for, parts, small_resnet
from layerlab.experiments.spot_tune_sweep import (
    LRS,
    SEEDS,
    ahead_of,
    chosen_lr,
    key,
    over_seeds,
    sweep,
    tuned,
)
from layerlab.experiments.sweep_file import read
from layerlab.experiments.two_copies import BLOCKS, Coin, Policy, SameForAll, TwoCopies
from layerlab.ledger import watch


@pytest.fixture
def images():
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Fixed(torch.nn.Module):
    """A policy that is told what to choose."""

    def __init__(self, choice):
        super().__init__()
        self.choice = choice

    def forward(self, x):
        return self.choice


# -- the policy ----------------------------------------------------------------------------------------


def test_the_choice_is_0_or_1_and_its_gradient_that_of_the_softmax():
    policy = Policy(SameForAll(), tau=0.7)
    with torch.no_grad():
        policy.scores.value.copy_(torch.linspace(-1, 1, 2 * BLOCKS))
    weights = torch.randn(5, BLOCKS, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(4)
    choice = policy(torch.zeros(5, 1))
    (choice * weights).sum().backward()

    torch.manual_seed(4)
    scores = torch.linspace(-1, 1, 2 * BLOCKS).requires_grad_()
    noisy = scores.expand(5, -1).view(5, BLOCKS, 2)
    gumbel = -torch.empty(5, BLOCKS, 2).exponential_().log()
    soft = ((noisy + gumbel) / 0.7).softmax(-1)[..., 1]
    (soft * weights).sum().backward()
    assert torch.equal(choice.detach().round(), (soft > 0.5).float())
    torch.testing.assert_close(choice.detach(), (soft > 0.5).float())
    torch.testing.assert_close(policy.scores.value.grad, scores.grad)
    assert scores.grad.any()


def test_in_eval_mode_it_takes_the_likelier_copy_and_draws_nothing():
    policy = Policy(SameForAll()).eval()
    with torch.no_grad():
        policy.scores.value.copy_(torch.tensor([0.0, 1, 1, 0, -2, -1, 3, 2]))
    before = torch.get_rng_state()
    assert policy(torch.zeros(2, 1)).tolist() == [[1, 0, 1, 0]] * 2
    assert torch.equal(torch.get_rng_state(), before)


def test_the_coin_is_fair_and_in_eval_mode_always_the_same():
    coin = Coin()
    torch.manual_seed(0)
    thrown = coin(torch.zeros(2000, 1))
    assert set(thrown.flatten().tolist()) == {0.0, 1.0}
    assert abs(thrown.mean() - 0.5) < 0.03
    coin.eval()
    assert torch.equal(coin(torch.zeros(9, 1)), coin(torch.zeros(9, 1)))


# -- two copies ----------------------------------------------------------------------------------------


def test_as_long_as_the_copies_are_alike_no_route_makes_a_difference(images):
    net = small_resnet(10, seed=0)
    for choice in (torch.zeros(6, BLOCKS), torch.ones(6, BLOCKS), torch.eye(6)[:, :BLOCKS]):
        assert torch.equal(TwoCopies(net, Fixed(choice))(images), net(images))


def test_each_image_goes_its_own_way(images):
    net = small_resnet(10, seed=0)
    choice = torch.zeros(6, BLOCKS)
    choice[0], choice[1, 2] = 1, 1
    model = TwoCopies(net, Fixed(choice))
    old = copy.deepcopy(net)
    with torch.no_grad():
        for p in net.blocks.parameters():
            p.mul_(1.5)
    mixed = copy.deepcopy(old)
    mixed.blocks[2] = net.blocks[2]
    out = model(images)
    torch.testing.assert_close(out[0], net(images)[0])
    torch.testing.assert_close(out[1], mixed(images)[1])
    torch.testing.assert_close(out[2:], old(images)[2:])
    assert not torch.allclose(net(images), old(images))


def test_an_image_leaves_a_gradient_in_the_blocks_that_are_tuned_for_it_alone(images):
    labels = torch.arange(6)
    net = small_resnet(10, seed=0)
    choice = torch.zeros(6, BLOCKS)
    choice[3, 1] = 1
    cross_entropy(TwoCopies(net, Fixed(choice))(images), labels).backward()
    alone = small_resnet(10, seed=0)
    (cross_entropy(alone(images[3:4]), labels[3:4]) / 6).backward()
    for k, (block, same) in enumerate(zip(net.blocks, alone.blocks, strict=True)):
        for p, q in zip(block.parameters(), same.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad if k == 1 else torch.zeros_like(p))


def test_no_example_has_a_say_in_what_another_gives(images):
    net = small_resnet(10, seed=0)
    inputs = images.clone().requires_grad_()
    net(inputs)[0].sum().backward()
    assert inputs.grad[0].any()
    assert not inputs.grad[1:].any()


# -- the tasks and the methods -------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_the_parts_of_a_task(task):
    some = parts(task, seed=3)
    train, rest = target(5, 3, task="digit")
    assert len(some.train) == len(train) == 50
    assert torch.bincount(some.train.labels).tolist() == [5] * 10
    assert len(some.development) + len(some.test) == len(rest)
    assert len(some.foreign) == len(some.test)
    drawn = torch.cat([some.train.pixels, some.development.pixels, some.test.pixels]).flatten(1)
    plain = {tuple(one) for one in torch.cat([train.pixels, rest.pixels]).flatten(1).tolist()}
    if task == "negatives":
        negative = torch.cat([torch.arange(50) % 2, torch.arange(len(rest)) % 2]) == 1
        assert torch.equal(some.foreign, negative[-len(some.test) :])
        drawn = torch.where(negative[:, None], -drawn, drawn)
    else:
        assert torch.equal(some.foreign, some.test.labels >= 5)
    assert {tuple(one) for one in drawn.tolist()} == plain  # each image once, whichever part it is in
    again = parts(task, seed=3)
    assert torch.equal(again.test.pixels, some.test.pixels)


BELOW = ["stem", *(f"blocks.{k}" for k in range(BLOCKS))]
MOVING = {
    "scratch": {*BELOW, "norm", "head"},
    "frozen": {"norm", "head"},
    "last_two": {*BELOW[3:], "norm", "head"},
    "fine_tune": {*BELOW[1:], "norm", "head"},
}


@pytest.mark.parametrize("method", METHODS)
def test_what_each_method_moves(method, images):
    weights = small_resnet(10, seed=5).state_dict()
    model = model_for(method, weights)
    if method != "scratch":
        net = model.net if isinstance(model, TwoCopies) else model
        assert all(torch.equal(net.state_dict()[name], weights[name]) for name in weights)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    torch.manual_seed(0)
    with watch(model, optimizer) as ledger:
        for _ in range(2):
            optimizer.zero_grad()
            cross_entropy(model(images), torch.arange(6)).backward()
            optimizer.step()
    moved = set(ledger[1].moved)
    if isinstance(model, TwoCopies):
        # As long as the copies are alike, the choice makes no difference, so it has no gradient.
        assert not {name for name in ledger[0].moved if name.startswith("policy.")}
        assert not {name for name in moved if name.startswith("stay.")}
        assert any(name.startswith("policy.") for name in moved) == (method != "random_routes")
        moved = {name.removeprefix("net.") for name in moved if name.startswith("net.")}
        expected = MOVING["fine_tune"]
    else:
        expected = MOVING[method]
    assert moved == {name for name in weights if any(name.startswith(f"{module}.") for module in expected)}


def test_a_head_for_other_digits_is_replaced():
    five = small_resnet(5, seed=1)
    model = model_for("frozen", five.state_dict(), seed=2)
    assert torch.equal(model.blocks[3].conv2.weight, five.blocks[3].conv2.weight)
    assert torch.equal(model.head.weight, small_resnet(10, seed=2).head.weight)


def test_learning_and_pretraining_learn(monkeypatch):
    monkeypatch.setattr(spot_tune, "PRETRAINING_EPOCHS", 2)
    monkeypatch.setattr(spot_tune, "EPOCHS", 3)
    weights = spot_tune.pretrained("new_digits", seed=0)
    assert weights["head.weight"].shape[0] == 5
    some = parts("new_digits")
    result = learn("spot_tune", some, weights)
    kinds = [int((~some.foreign).sum()), int(some.foreign.sum())]
    right = result.familiar * kinds[0] + result.foreign * kinds[1]
    assert result.test * len(some.test) == pytest.approx(right)
    assert result.test > 0.2  # of ten classes
    assert [len(shares) for shares in result.tuned] == [BLOCKS, BLOCKS]
    assert result == learn("spot_tune", some, weights)
    assert learn("frozen", some, weights).tuned == ()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: parts("letters"), "task='letters': choose one of negatives, new_digits"),
        (lambda: spot_tune.pretrained("letters"), "task='letters': choose one of"),
        (lambda: model_for("thaw", {}), "method='thaw': choose one of scratch"),
    ],
)
def test_unknown_names_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


# -- the sweep -----------------------------------------------------------------------------------------


@pytest.fixture
def trained(monkeypatch):
    """A list of all that was trained; each comes to a figure that follows from its place."""
    calls = []

    def learn(method, some, weights, *, seed, lr):
        assert (some, weights) == (f"parts of {seed}", f"weights of {seed}")
        assert torch.get_num_threads() == 1
        calls.append((method, seed, lr))
        return Result(len(calls) / 1000, 0.5, 0.4, 0.6, ((0.25,), (0.75,)))

    monkeypatch.setattr(spot_tune_sweep, "learn", learn)
    monkeypatch.setattr(spot_tune_sweep, "parts", lambda task, seed: f"parts of {seed}")
    monkeypatch.setattr(spot_tune_sweep, "pretrained", lambda task, seed: f"weights of {seed}")
    return calls


def test_a_sweep_trains_each_run_once_and_goes_on_where_it_stopped(trained, tmp_path):
    path = tmp_path / "out" / "spot_tune.json"
    running = sweep(path, seeds=(0, 1))
    next(running)
    running.close()
    a_round = len(METHODS) * len(LRS)
    assert len(read(path)) == len(trained) == a_round
    assert list(sweep(path, seeds=(0, 1))) == [
        "new_digits, seed 0",
        "negatives, seed 1",
        "new_digits, seed 1",
    ]
    assert list(sweep(path, seeds=(0, 1))) == []
    keys = [key(t, m, lr, s) for s in (0, 1) for t in TASKS for m in METHODS for lr in LRS]
    assert list(read(path)) == keys
    assert len(trained) == len(keys) == 4 * a_round
    assert read(path)[keys[-1]]["development"] == len(keys) / 1000
    (made,) = json.loads(path.read_text())["made_with"]
    assert made["hardware"] == "CPU, 1 thread"
    assert [p.name for p in path.parent.iterdir()] == ["spot_tune.json"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"results": 3}'])
def test_a_file_that_holds_something_else_is_kept(content, tmp_path, trained):
    path = tmp_path / "spot_tune.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="holds no results of this kind; move it away"):
        list(sweep(path))
    assert path.read_text() == content
    assert not trained


def test_the_rate_is_chosen_on_development_images_and_the_figure_is_that_on_test_images():
    development = {1e-3: [0.5, 0.9], 3e-3: [0.6, 0.6], 1e-2: [0.1, 0.2]}
    test = {1e-3: [0.3, 0.4], 3e-3: [0.9, 0.9], 1e-2: [1.0, 1.0]}
    found = {}
    for method, more in (("spot_tune", 0.0), ("frozen", 0.05)):
        for lr in LRS:
            for seed in (0, 1):
                found[key("negatives", method, lr, seed)] = {
                    "development": development[lr][seed],
                    "test": test[lr][seed] + more * (-1) ** seed,
                    "tuned": [[seed, 0.0], [1.0, 0.5]],
                }
    assert chosen_lr(found, "negatives", "spot_tune", (0, 1)) == 1e-3
    assert over_seeds(found, "negatives", "spot_tune", seeds=(0, 1)) == (mean(test[1e-3]), stdev(test[1e-3]))
    gap, spread, wins = ahead_of(found, "negatives", "frozen", "spot_tune", (0, 1))
    assert (gap, spread, wins) == (pytest.approx(0), pytest.approx(stdev([0.05, -0.05])), 1)
    assert tuned(found, "negatives", seeds=(0, 1)) == [[0.5, 0.0], [1.0, 0.5]]
    with pytest.raises(KeyError, match="last_two"):
        over_seeds(found, "negatives", "last_two", seeds=(0, 1))


def test_what_is_recorded_is_whole_and_says_what_the_lesson_says():
    """The claims of lesson 10, on the figures that come with the repository."""
    found = read(recorded() / "spot_tune.json")
    assert set(found) == {key(t, m, lr, s) for t in TASKS for m in METHODS for lr in LRS for s in SEEDS}
    for task in TASKS:
        gap, spread, _ = ahead_of(found, task, "spot_tune", "fine_tune")
        assert abs(gap) < spread  # no better and no worse than the spread between seeds
        for below in ("frozen", "random_routes"):
            gap, spread, wins = ahead_of(found, task, below, "fine_tune")
            assert (gap < -spread, wins) == (True, 0)
    gap, spread, _ = ahead_of(found, "negatives", "one_route_for_all", "spot_tune")
    assert gap < -spread
    like, foreign = tuned(found, "negatives")
    assert min(foreign) > max(like)
