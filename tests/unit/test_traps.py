"""Every trap by which a frozen layer moves, or a trained one stays: provoked, and read off the ledger.

One test a trap of the two trap tables. Each checks three things against what really happened: the tensor
moved or stayed (bitwise, against a clone), the reason, and an alarm whose cure works.
"""

import pytest
import torch
from torch import nn

from layerlab.freezing import freeze
from layerlab.ledger import watch
from layerlab.record import Reason

OPTIM = torch.optim


class TwoBranches(nn.Module):
    """A shared body and two branches, of which each loss uses one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, 4)
        self.left = nn.Linear(4, 2)
        self.right = nn.Linear(4, 2)

    def forward(self, x, branch="left"):
        return getattr(self, branch)(torch.tanh(self.body(x)))


def backward(net, branch="left", scale=1.0):
    (net(torch.linspace(-1, 1, 15).reshape(5, 3), branch).square().mean() * scale).backward()


def alarm_of(ledger, code, name=None):
    found = [a for a in ledger.alarms if a.code == code and name in (None, a.name)]
    assert found, f"no {code} for {name} among {[(a.code, a.name) for a in ledger.alarms]}"
    return found[0]


def bits(tensor):
    return tensor.detach().clone()


OPTIMIZERS = {
    "SGD": lambda p: OPTIM.SGD(p, 0.1),
    "SGD momentum": lambda p: OPTIM.SGD(p, 0.1, momentum=0.9),
    "SGD weight decay": lambda p: OPTIM.SGD(p, 0.1, weight_decay=0.01),
    "Adam": lambda p: OPTIM.Adam(p, 0.1),
    "AdamW": lambda p: OPTIM.AdamW(p, 0.1),
}
BY_STATE = {
    "SGD momentum": Reason.MOMENTUM,
    "SGD weight decay": Reason.WEIGHT_DECAY,
    "Adam": Reason.MOMENTUM,
    "AdamW": Reason.MOMENTUM,
}


# -- how a layer that was meant to be frozen moves -----------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("cured", [False, True])
def test_frozen_between_backward_and_step(optimizer, cured):
    net = TwoBranches()
    optimizer = OPTIMIZERS[optimizer](net.parameters())
    with watch(net, optimizer) as ledger:
        backward(net)
        net.left.weight.requires_grad_(False)
        if cured:
            net.left.weight.grad = None
        before = bits(net.left.weight)
        optimizer.step()
    row = ledger[0]["left.weight"]
    assert row.moved != torch.equal(before, net.left.weight)
    if cured:
        assert row.reason is Reason.NO_GRADIENT
        assert not ledger.alarms
        return
    assert row.reason is Reason.GRADIENT
    alarm = alarm_of(ledger, "frozen-too-late", "left.weight")
    assert "model.left.weight.grad = None" in alarm.cure


@pytest.mark.parametrize("how", ["forgotten", "does not cover"])
def test_stale_gradient(how):
    net = TwoBranches()
    optimizer = OPTIM.SGD(net.parameters(), 0.1)
    some = OPTIM.SGD(net.right.parameters(), 0.1)
    with watch(net, optimizer) as ledger:
        backward(net, "left")
        optimizer.step()
        if how == "does not cover":
            some.zero_grad()
        backward(net, "right")
        before = bits(net.left.weight)
        optimizer.step()
    row = ledger[1]["left.weight"]
    assert not torch.equal(before, net.left.weight)
    assert (row.reason, row.grad_stale) == (Reason.GRADIENT, True)
    assert not ledger[1]["right.weight"].grad_stale
    alarm = alarm_of(ledger, "stale-gradient", "left.weight")
    assert "model.zero_grad()" in alarm.cure
    assert all(a.name.startswith("left") for a in ledger.alarms)


class OurOwn(OPTIM.SGD):
    def __init__(self, params, lr, momentum=0.5):
        super().__init__(params, lr=lr, momentum=momentum)


def test_the_cure_calls_an_optimizer_of_ones_own_by_its_own_name():
    net, before = TwoBranches(), TwoBranches()
    with watch(net, OurOwn(before.parameters(), 0.25, momentum=0.75)) as ledger:
        pass
    alarm = alarm_of(ledger, "layer-replaced")
    exec(alarm.cure, named := {"OurOwn": OurOwn, "model": net})
    (group,) = named["optimizer"].param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in net.parameters()]
    assert (group["lr"], group["momentum"]) == (0.25, 0.75)


def test_an_optimizer_of_another_model():
    net, before = TwoBranches(), TwoBranches()
    optimizer = OPTIM.SGD(before.parameters(), 0.1)
    with watch(net, optimizer) as ledger:
        pass
    (alarm,) = [a for a in ledger.alarms if a.code == "layer-replaced"]
    assert alarm.cure.startswith("optimizer = torch.optim.SGD(model.parameters(), lr=0.1)")
    assert alarm.what == "this SGD holds no tensor of this model"
    assert "built with the parameters of another one" in alarm.cause


def test_a_gradient_is_not_stale_because_another_optimizer_stepped():
    net = TwoBranches()
    left, right = (OPTIM.SGD(part.parameters(), 0.1) for part in (net.left, net.right))
    with watch(net, left, right) as ledger:
        for _ in range(3):
            net.zero_grad()
            backward(net, "left")
            backward(net, "right")
            left.step()
            right.step()
        backward(net, "left")
        right.step()  # the gradient of `right` is the one of its step before
    assert not any(t.grad_stale for step in ledger[:6] for t in step.values())
    stale = [a for a in ledger.alarms if a.code == "stale-gradient"]
    assert {(a.name, a.step) for a in stale} == {("right.weight", 6), ("right.bias", 6)}


@pytest.mark.parametrize("made_by", ["set_to_none=False", "0 * loss", "grad.zero_()"])
@pytest.mark.parametrize("name", BY_STATE)
def test_a_gradient_of_zeros(name, made_by):
    net = TwoBranches()
    optimizer = OPTIMIZERS[name](net.parameters())
    with watch(net, optimizer) as ledger:
        backward(net, "left")
        optimizer.step()
        optimizer.zero_grad(set_to_none=made_by != "set_to_none=False")
        backward(net, "right")
        if made_by != "set_to_none=False":
            backward(net, "left", scale=0.0 if made_by == "0 * loss" else 1.0)
        if made_by == "grad.zero_()":
            net.left.weight.grad.zero_()
        before = bits(net.left.weight)
        optimizer.step()
        # the cure
        backward(net, "right")
        net.left.weight.grad = None
        cured = bits(net.left.weight)
        optimizer.step()
    row = ledger[1]["left.weight"]
    assert not torch.equal(before, ledger.values(1, "left.weight").after)
    assert (row.grad, row.reason) == ("zero", BY_STATE[name])
    assert "model.left.weight.grad = None" in alarm_of(ledger, "moved-without-gradient", "left.weight").cure
    assert torch.equal(cured, net.left.weight)
    assert ledger[2]["left.weight"].reason is Reason.NO_GRADIENT


@pytest.mark.parametrize("name", BY_STATE)
def test_masked_rows(name):
    net = TwoBranches()
    optimizer = OPTIMIZERS[name](net.parameters())
    with watch(net, optimizer) as ledger:
        for step in range(2):
            optimizer.zero_grad()
            backward(net, "left")
            if step == 1:
                net.body.weight.grad[1:] = 0  # only row 0 is meant to train
            before = bits(net.body.weight)
            optimizer.step()
    row = ledger[1]["body.weight"]
    assert row.reason is Reason.GRADIENT
    assert row.zero_grad_rows_moved == int((before != net.body.weight).any(1)[1:].sum()) == 3
    alarm = alarm_of(ledger, "idle-rows-moved", "body.weight")
    assert alarm.level == "notice"
    # the cure's line, run as it stands
    model, previous = net, bits(net.body.weight)
    exec(alarm.cure, {"model": model, "optimizer": optimizer})
    assert torch.equal(previous[1:], net.body.weight[1:])
    assert not torch.equal(previous[0], net.body.weight[0])


@pytest.mark.parametrize("how", ["grad None", "flag", "no_grad"])
def test_lbfgs_moves_what_was_frozen_after_its_first_step(how):
    net = TwoBranches()
    optimizer = OPTIM.LBFGS(net.parameters(), lr=0.1, max_iter=3)

    def closure():
        optimizer.zero_grad()
        backward(net)
        if frozen:
            net.left.weight.grad = None
        return torch.tensor(1.0)

    with watch(net, optimizer) as ledger:
        frozen = False
        optimizer.step(closure)
        frozen = True
        if how == "flag":
            net.left.weight.requires_grad_(False)
        before = bits(net.left.weight)
        optimizer.step(closure)
    row = ledger[1]["left.weight"]
    assert not torch.equal(before, net.left.weight)
    assert (row.moved, row.reason) == (True, Reason.UNKNOWN)
    code = "frozen-but-moved" if how == "flag" else "moved-without-gradient"
    alarm = alarm_of(ledger, code, "left.weight")
    assert "one history for all its parameters" in alarm.cause
    assert "torch.optim.LBFGS([p for p in model.parameters() if p.requires_grad], lr=0.1, max" in alarm.cure
    exec(alarm.cure, named := {"torch": torch, "model": net})
    assert [id(p) for p in named["optimizer"].param_groups[0]["params"]] == [
        id(p) for p in net.parameters() if p.requires_grad
    ]


class Jitter(OPTIM.Optimizer):
    """Moves all it holds at random, gradient or not."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(torch.rand_like(p), alpha=group["lr"])


def test_what_no_replay_explains_is_said_to_be_unknown_with_a_cure_that_runs():
    net = TwoBranches()
    optimizer = Jitter(net.parameters(), 0.25)
    with watch(net, optimizer) as ledger:
        backward(net, "right")
        optimizer.step()
    assert ledger[0]["left.weight"].reason is Reason.UNKNOWN
    alarm = alarm_of(ledger, "moved-without-gradient", "left.weight")
    assert "Jitter moved it, and no replay of the step shows why" in alarm.cause
    exec(alarm.cure, named := {"Jitter": Jitter, "model": net})
    assert named["optimizer"].param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("value", [False, True])
def test_flag_set_on_a_module(value):
    net = TwoBranches()
    optimizer = OPTIM.SGD(net.parameters(), 0.1)
    if value:  # trying to unfreeze so: nothing trains, and backward() raises
        net.requires_grad_(False)
    net.left.requires_grad = value
    with watch(net, optimizer) as ledger:
        if value:
            with pytest.raises(RuntimeError, match="does not require grad"):
                backward(net)
        else:
            backward(net)
            optimizer.step()
            assert ledger[0]["left.weight"].reason is Reason.GRADIENT
            assert ledger[0]["left.weight"].moved
    alarm = alarm_of(ledger, "flag-on-module", "left")
    assert alarm.cure == f"model.left.requires_grad_({value})"
    exec(alarm.cure, {"model": net})
    assert net.left.weight.requires_grad is value


def test_misspelt_flag():
    net = TwoBranches()
    optimizer = OPTIM.SGD(net.parameters(), 0.1)
    with watch(net, optimizer) as ledger:
        net.left.weight.require_grad = False
        backward(net)
        optimizer.step()
    assert ledger[0]["left.weight"].reason is Reason.GRADIENT
    alarm = alarm_of(ledger, "misspelt-flag", "left.weight")
    assert alarm.cure == "model.left.weight.requires_grad = False"


@pytest.mark.parametrize("attribute", ["require_grad", "requires_grads", "requires_grad_"])
def test_misspelt_flag_on_a_module(attribute):
    net = TwoBranches()
    optimizer = OPTIM.SGD(net.parameters(), 0.1)
    setattr(net.left, attribute, False)
    with watch(net, optimizer) as ledger:
        pass
    alarm = alarm_of(ledger, "misspelt-flag", "left")
    exec(alarm.cure, {"model": net})
    assert not any(p.requires_grad for p in net.left.parameters())
    with watch(net, optimizer) as ledger:
        pass
    assert not ledger.alarms  # the attribute is still there, and what it asks for is so


class WithNorm(nn.Module):
    def __init__(self, affine=True, momentum=0.1):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=affine, momentum=momentum))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("by", ["training", "no_grad", "train() after eval()"])
def test_batchnorm_statistics_of_a_frozen_layer(by, affine):
    net = WithNorm(affine)
    net.body.requires_grad_(False)
    optimizer = OPTIM.SGD(net.head.parameters(), 0.1)
    x = torch.linspace(-1, 1, 15).reshape(5, 3)
    if by == "train() after eval()":
        net.body.eval()
        net.train()
    with watch(net, optimizer) as ledger:
        before = bits(net.body[1].running_mean)
        if by == "no_grad":
            with torch.no_grad():
                net(x)
            net.body.eval()
        net(x).square().mean().backward()
        optimizer.step()
        assert not torch.equal(before, net.body[1].running_mean)
        # the cure
        net.body[1].eval()
        before = bits(net.body[1].running_mean)
        net(x).square().mean().backward()
        optimizer.step()
        assert torch.equal(before, net.body[1].running_mean)
    assert ledger[0]["body.1.running_mean"].reason is Reason.FORWARD
    assert ledger[1]["body.1.running_mean"].reason is Reason.UNTOUCHED
    alarm = alarm_of(ledger, "frozen-statistics")
    assert alarm.name == "body.1"
    assert alarm.cure.startswith("model.body[1].eval()")
    assert alarm.count == 1


def test_batchnorm_momentum_zero_keeps_the_statistics():
    net = WithNorm(momentum=0.0)
    net.body.requires_grad_(False)
    optimizer = OPTIM.SGD(net.head.parameters(), 0.1)
    with watch(net, optimizer) as ledger:
        net(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()
    assert ledger[0]["body.1.running_mean"].reason is Reason.UNTOUCHED
    assert ledger[0]["body.1.num_batches_tracked"].reason is Reason.FORWARD


def test_batchnorm_told_to_stay_in_train_mode_is_no_alarm():
    net = WithNorm()
    optimizer = OPTIM.SGD(net.parameters(), 0.1)
    with freeze(net, "body", batchnorm="train"), watch(net, optimizer) as ledger:
        net(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()
    assert ledger[0]["body.1.running_mean"].reason is Reason.FORWARD
    assert not ledger.alarms


@pytest.mark.parametrize("cured", [False, True])
@pytest.mark.parametrize("name", ["SGD momentum", "Adam"])
def test_released_with_old_momentum(name, cured):
    net = nn.Linear(3, 2, bias=False)
    optimizer = OPTIMIZERS[name](net.parameters())
    gradient = torch.ones(2, 3)
    with watch(net, optimizer) as ledger:
        for _ in range(5):
            net.weight.grad = gradient.clone()
            optimizer.step()
        net.weight.requires_grad_(False)
        net.weight.grad = None
        optimizer.step()
        net.weight.requires_grad_(True)
        if cured:
            optimizer.state.pop(net.weight)
        before = bits(net.weight)
        net.weight.grad = -0.1 * gradient  # now it should walk the other way
        optimizer.step()
    against = bool(((net.weight - before) * net.weight.grad > 0).all())
    row = ledger[-1]["weight"]
    assert row.reason is Reason.GRADIENT
    assert (row.parts.agreement < 0) == against == (not cured)
    if cured:
        assert not [a for a in ledger.alarms if a.code == "stale-momentum"]
    else:
        assert "optimizer.state.pop(model.weight" in alarm_of(ledger, "stale-momentum", "weight").cure


def schedulers(optimizer):
    S = OPTIM.lr_scheduler
    return {
        "cosine eta_min": lambda: S.CosineAnnealingLR(optimizer, T_max=5, eta_min=1e-3),
        "warm restarts": lambda: S.CosineAnnealingWarmRestarts(optimizer, T_0=5, eta_min=1e-3),
        "OneCycle": lambda: S.OneCycleLR(optimizer, max_lr=0.1, total_steps=10),
        "Cyclic": lambda: S.CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, cycle_momentum=False),
        "Step": lambda: S.StepLR(optimizer, 2, 0.1),
        "Exponential": lambda: S.ExponentialLR(optimizer, 0.9),
        "Lambda": lambda: S.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
        "Plateau": lambda: S.ReduceLROnPlateau(optimizer, patience=0),
        "Polynomial": lambda: S.PolynomialLR(optimizer, 5),
    }


SCHEDULERS = list(schedulers(None))


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_schedulers_over_a_group_with_lr_zero(kind):
    net = TwoBranches()
    optimizer = OPTIM.SGD(
        [{"params": net.body.parameters(), "lr": 0.0}, {"params": net.left.parameters()}],
        lr=0.1,
        momentum=0.9,
    )
    start = bits(net.body.weight)
    with watch(net, optimizer) as ledger:
        scheduler = schedulers(optimizer)[kind]()
        for _ in range(4):
            optimizer.zero_grad()
            backward(net)
            optimizer.step()
            scheduler.step(*([1.0] if kind == "Plateau" else []))
    wakes = kind in SCHEDULERS[:4]
    assert wakes != torch.equal(start, net.body.weight)
    if not wakes:
        assert {s["body.weight"].reason for s in ledger} == {Reason.LR_ZERO}
        assert {s["body.weight"].frozen for s in ledger} == {"lr_zero"}
        assert not ledger.alarms
        return
    assert ledger[-1]["body.weight"].reason is Reason.GRADIENT
    alarm = alarm_of(ledger, "woken", "body.weight")
    assert (alarm.level, "a scheduler rewrote" in alarm.cause) == ("alarm", True)
    assert "model.body.weight.requires_grad_(False)" in alarm.cure


def test_no_scheduler_is_blamed_where_a_group_was_released_by_hand():
    net = TwoBranches()
    optimizer = OPTIM.SGD(
        [{"params": net.body.parameters(), "lr": 0.0}, {"params": net.left.parameters()}], lr=0.1
    )
    with watch(net, optimizer) as ledger:
        for lr in (0.0, 0.0, 0.1):
            optimizer.param_groups[0]["lr"] = lr
            optimizer.zero_grad()
            backward(net)
            optimizer.step()
    alarm = alarm_of(ledger, "woken", "body.weight")
    assert (alarm.level, alarm.step) == ("notice", 2)
    assert alarm.cause.startswith("no scheduler was built on this optimizer")
    exec(alarm.cure, {"model": net})
    before = bits(net.body.weight)
    optimizer.zero_grad()
    backward(net)
    optimizer.step()
    assert torch.equal(before, bits(net.body.weight))


def test_a_warm_up_from_zero_is_no_alarm():
    net = TwoBranches()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    scheduler = OPTIM.lr_scheduler.LambdaLR(optimizer, lambda step: step / 3)
    with watch(net, optimizer) as ledger:
        for _ in range(4):
            optimizer.zero_grad()
            backward(net, "left")
            backward(net, "right")
            optimizer.step()
            scheduler.step()
    assert ledger[0]["body.weight"].reason is Reason.LR_ZERO
    assert not ledger.alarms


# -- what never moves, and whether it matters


def test_a_bias_before_batchnorm_is_no_alarm():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))
    optimizer = OPTIM.SGD(net.parameters(), 0.001)
    x = torch.randn(32, 8)
    with watch(net, optimizer) as ledger:
        for _ in range(3):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    assert ledger[-1]["0.bias"].reason is Reason.BELOW_RESOLUTION
    alarm = alarm_of(ledger, "never-moved", "0.bias")
    assert alarm.level == "notice"
    assert "rounding noise" in alarm.cause
    exec(alarm.cure, {"model": net})
    assert not net[0].bias.requires_grad
    with torch.no_grad():  # it is true that the output does not depend on it
        before = net(x)
        net[0].bias += 1
        torch.testing.assert_close(net(x), before)


def test_vanishing_gradients_are_no_noise():
    torch.manual_seed(0)
    net = nn.Sequential(
        *(module for _ in range(9) for module in (nn.Linear(8, 8), nn.Sigmoid())), nn.Linear(8, 3)
    )
    optimizer = OPTIM.SGD(net.parameters(), 0.01)
    x, y = torch.randn(32, 8), torch.randint(0, 3, (32,))
    with watch(net, optimizer) as ledger:
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    largest = max(t.grad_max for t in ledger[-1].values())
    assert ledger[-1]["0.weight"].grad_max < 1e-5 * largest
    still = [alarm for alarm in ledger.alarms if alarm.code == "never-moved"]
    assert "0.weight" in {alarm.name for alarm in still}
    assert {alarm.level for alarm in still} == {"alarm"}


def test_an_infinite_gradient_elsewhere_makes_no_noise_of_the_rest():
    net = TwoBranches().bfloat16()
    optimizer = OPTIM.SGD(net.parameters(), 1e-6)
    with watch(net, optimizer) as ledger:
        for _ in range(2):
            for name, p in net.named_parameters():
                p.grad = torch.full_like(p, float("inf") if name.startswith("right") else 1e-3)
            optimizer.step()
    still = {a.name: a.level for a in ledger.alarms if a.code == "never-moved" and a.name.startswith("left")}
    assert still.get("left.weight") == "alarm"


def test_an_update_below_the_spacing_of_numbers_has_a_cure_that_moves_it():
    net = nn.Linear(4, 3).bfloat16()
    optimizer = OPTIM.SGD(net.parameters(), 1e-5)
    x = torch.linspace(-1, 1, 20).reshape(5, 4).bfloat16()

    def train(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()

    with torch.no_grad():
        net.weight.fill_(1.0)
    with watch(net, optimizer) as ledger:
        train(2)
    alarm = alarm_of(ledger, "never-moved", "weight")
    assert alarm.level == "alarm"
    for _ in range(3):
        exec(alarm.cure, {"optimizer": optimizer})
    before = bits(net.weight)
    train(1)
    assert not torch.equal(before, net.weight)


# -- how a layer that was meant to train stays still ---------------------------------------------------------


def test_optimizer_built_before_the_layer_was_replaced():
    net = TwoBranches()
    optimizer = OPTIM.SGD(net.parameters(), 0.1)
    net.left = nn.Linear(4, 7)
    before = bits(net.left.weight)
    with watch(net, optimizer) as ledger:
        for _ in range(2):
            optimizer.zero_grad()
            backward(net)
            optimizer.step()
    row = ledger[1]["left.weight"]
    assert torch.equal(before, net.left.weight)
    assert (row.moved, row.reason, row.grad) == (False, Reason.NOT_IN_OPTIMIZER, "nonzero")
    assert alarm_of(ledger, "in-no-optimizer", "left.weight").count == 2
    alarm = alarm_of(ledger, "layer-replaced")
    assert "2 tensors that the model no longer has" in alarm.what
    assert "left.weight, left.bias" in alarm.cause
    assert "torch.optim.SGD(model.parameters()" in alarm.cure


@pytest.mark.parametrize("named", [False, True])
def test_unfrozen_after_the_optimizer_was_built_from_a_filter(named):
    net = TwoBranches()
    net.left.requires_grad_(False)
    kept = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    optimizer = OPTIM.SGD(kept if named else [p for _, p in kept], 0.1)
    net.left.requires_grad_(True)
    with watch(net, optimizer) as ledger:
        backward(net)
        optimizer.step()
        assert ledger[0]["left.weight"].reason is Reason.NOT_IN_OPTIMIZER
        cure = alarm_of(ledger, "in-no-optimizer", "left.weight").cure
        exec(cure, {"model": net, "optimizer": optimizer})
        optimizer.step()
    assert ledger[1]["left.weight"].reason is Reason.GRADIENT
    with pytest.raises(ValueError, match="more than one parameter group"):
        exec(cure, {"model": net, "optimizer": optimizer})


def test_the_articles_fix_as_printed_leaves_the_flag_down():
    net = TwoBranches()
    optimizer = OPTIM.Adam(net.parameters(), 0.1)
    with watch(net, optimizer) as ledger:
        for task in ("left", "right", "left", "left"):
            optimizer.zero_grad()
            backward(net, task)
            if task == "right":
                net.left.weight.requires_grad_(False)  # printed: freeze_params_grad, never undone
            optimizer.step()
    assert [s["left.weight"].moved for s in ledger] == [True, False, False, False]
    assert ledger[2]["left.weight"].reason is Reason.NO_GRADIENT
    alarm = alarm_of(ledger, "left-frozen", "left.weight")
    assert (alarm.step, alarm.count) == (2, 2)
    exec(alarm.cure, {"model": net})
    assert net.left.weight.requires_grad


def test_a_part_that_a_handle_holds_was_not_forgotten():
    net = TwoBranches()
    optimizer = OPTIM.Adam(net.parameters(), 0.1)
    with watch(net, optimizer) as ledger:
        backward(net)
        optimizer.step()
        with freeze(net, "left"):
            for _ in range(3):
                optimizer.zero_grad()
                backward(net)
                optimizer.step()
    assert not [a for a in ledger.alarms if a.code == "left-frozen"]


def test_a_generator_used_up_before_the_optimizer_reads_it():
    net = TwoBranches()
    body = filter(lambda p: p.requires_grad, net.body.parameters())
    assert len(list(body)) == 2  # counting them uses the generator up
    optimizer = OPTIM.SGD([{"params": body}, {"params": net.left.parameters()}], 0.1)
    with watch(net, optimizer) as ledger:
        backward(net)
        optimizer.step()
    assert ledger[0]["body.weight"].reason is Reason.NOT_IN_OPTIMIZER
    alarm = alarm_of(ledger, "empty-group")
    assert alarm.name == "optimizer 0, group 0"
    assert "list(filter(" in alarm.cure
    assert "body.weight" in alarm.cause
    assert alarm_of(ledger, "in-no-optimizer", "body.weight")


def test_an_empty_group_that_leaves_nothing_out_is_a_notice():
    net = TwoBranches()
    optimizer = OPTIM.SGD([{"params": net.parameters()}, {"params": []}], 0.1)
    with watch(net, optimizer) as ledger:
        backward(net)
        optimizer.step()
    alarm = alarm_of(ledger, "empty-group")
    assert (alarm.level, alarm.name) == ("notice", "optimizer 0, group 1")
    exec(alarm.cure, {"optimizer": optimizer})
    assert [len(group["params"]) for group in optimizer.param_groups] == [len(list(net.parameters()))]


def test_an_empty_groups_cure_speaks_of_the_scheduler():
    net = TwoBranches()
    optimizer = OPTIM.SGD([{"params": net.parameters()}, {"params": []}], 0.1)
    OPTIM.lr_scheduler.StepLR(optimizer, 1)
    with watch(net, optimizer) as ledger:
        pass
    assert alarm_of(ledger, "empty-group").cure.endswith("# and build the scheduler anew")


def test_an_averaged_copy_is_not_left_out():
    net = nn.ModuleDict({"net": TwoBranches()})
    optimizer = OPTIM.SGD([{"params": net.parameters()}, {"params": []}], 0.1)
    net["average"] = OPTIM.swa_utils.AveragedModel(net["net"])
    with watch(net, optimizer) as ledger:
        pass
    assert alarm_of(ledger, "empty-group").level == "notice"


def test_what_goes_wrong_after_the_last_step_is_told_of_that_step():
    net = TwoBranches()
    optimizer = OPTIM.SGD(net.parameters(), 0.1)
    with watch(net, optimizer) as ledger:
        backward(net)
        optimizer.step()
        net.left.requires_grad = False
    alarm = alarm_of(ledger, "flag-on-module", "left")
    assert ledger[alarm.step].index == 0


@pytest.mark.parametrize(
    ("make", "built"),
    [
        (
            lambda p: OPTIM.SGD([{"params": p, "lr": 0.25, "weight_decay": 0.5}], 0.1),
            "lr=0.25, weight_decay=0.5)",
        ),
        (lambda p: OPTIM.Adam(p, torch.tensor(0.5)), "lr=0.5)"),
        (lambda p: Options(p, lr=0.5), "Options(model.parameters(), ...)"),
        (
            lambda p: OPTIM.SGD([{"params": [q]} for q in p], 0.5),
            "SGD([...], lr=0.5)  # [...]: your groups; build",
        ),
    ],
)
def test_an_optimizer_is_rebuilt_as_it_is(make, built):
    with watch(TwoBranches(), make(TwoBranches().parameters())) as ledger:
        pass
    assert built in alarm_of(ledger, "layer-replaced").cure


class Options(OPTIM.SGD):
    def __init__(self, params, **options):
        super().__init__(params, **options)


def test_a_used_up_generator_clips_nothing():
    net = TwoBranches()
    trained = filter(lambda p: p.requires_grad, net.parameters())
    OPTIM.SGD(trained, 0.1)
    backward(net)
    assert torch.nn.utils.clip_grad_norm_(trained, 1e-9) == 0.0
    assert net.body.weight.grad.abs().max() > 1e-6


# -- and no alarm where nothing is wrong ---------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ordinary_training_is_silent(name):
    net = TwoBranches()
    optimizer = OPTIMIZERS[name](net.parameters())
    with watch(net, optimizer) as ledger:
        for _ in range(3):
            optimizer.zero_grad()
            backward(net, "left")
            backward(net, "right")
            optimizer.step()
    assert not ledger.alarms


@pytest.mark.parametrize("how", ["requires_grad", "grad_none", "lr_zero"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_proper_freeze_is_silent_and_holds(name, how):
    net = TwoBranches()
    optimizer = OPTIMIZERS[name](net.parameters())
    with watch(net, optimizer) as ledger:
        for step in range(4):
            optimizer.zero_grad()
            handle = freeze(net, "body", how=how, optimizer=optimizer) if step == 1 else None
            backward(net, "left")
            backward(net, "right")
            before = bits(net.body.weight)
            optimizer.step()
            assert torch.equal(before, net.body.weight) == (step > 0)
            del handle
    assert ledger[1]["body.weight"].frozen == how
    assert ledger[1]["body.weight"].reason is (Reason.LR_ZERO if how == "lr_zero" else Reason.NO_GRADIENT)
    assert not ledger.alarms


@pytest.mark.parametrize("before_the_first_step", [False, True])
def test_a_handle_released_in_the_run_is_no_scheduler(before_the_first_step):
    """Released on purpose: nobody rewrote a learning rate behind anyone's back."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    handle = freeze(net, "0", "lr_zero", optimizer=optimizer)
    with watch(net, optimizer) as ledger:
        for step in range(3):
            if step == (0 if before_the_first_step else 1):
                handle.release()
            optimizer.zero_grad()
            net(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    assert ledger[-1]["0.weight"].moved
    assert ledger.alarms == []


def test_a_nan_gets_through_lr_zero_and_is_not_taken_for_a_zero_gradient():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(
        [{"params": net[0].parameters(), "lr": 0.0}, {"params": net[1].parameters()}], lr=0.1
    )
    with watch(net, optimizer) as ledger:
        net(torch.full((3, 2), torch.nan)).sum().backward()
        optimizer.step()
    assert net[0].weight.isnan().all()
    alarm = alarm_of(ledger, "frozen-but-moved", "0.weight")
    assert alarm.cause == "lr = 0 does not keep a gradient away, and 0 times inf or NaN is NaN"


def test_rprop_moves_at_lr_zero_and_is_named():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.Rprop(
        [{"params": net[0].parameters(), "lr": 0.0}, {"params": net[1].parameters()}], lr=0.1
    )
    before = net[0].weight.detach().clone()
    with watch(net, optimizer) as ledger:
        net(torch.randn(3, 2)).square().sum().backward()
        optimizer.step()
    assert not torch.equal(before, net[0].weight)
    alarm = alarm_of(ledger, "frozen-but-moved", "0.weight")
    assert "Rprop takes the size of its step from elsewhere" in alarm.cause
    model = net
    exec(alarm.cure, {"model": model})
    before = net[0].weight.detach().clone()
    net(torch.randn(3, 2)).square().sum().backward()
    optimizer.step()
    assert torch.equal(before, net[0].weight)
