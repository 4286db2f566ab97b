"""What `watch` records: every fact checked against what the test itself knows to have happened."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from layerlab.freezing import freeze
from layerlab.ledger import watch
from layerlab.record import Reason

OPTIM = torch.optim


def net_with_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def train_step(net, optimizer, x=None, **zero):
    optimizer.zero_grad(**zero)
    net(torch.randn(6, 3) if x is None else x).square().mean().backward()
    optimizer.step()


def codes(alarms):
    return {(a.code, a.name) for a in alarms}


def test_facts_of_an_ordinary_step():
    net = net_with_norm()
    net[2].eval()
    optimizer = OPTIM.Adam([{"params": net[0].parameters()}, {"params": net[2].weight, "lr": 0.5}], lr=0.01)
    with watch(net, optimizer) as ledger:
        before = {n: p.detach().clone() for n, p in net.named_parameters()}
        train_step(net, optimizer)
    step = ledger[0]
    assert list(step) == [
        "0.weight", "0.bias", "1.weight", "1.bias",
        "1.running_mean", "1.running_var", "1.num_batches_tracked", "2.weight", "2.bias",
    ]  # fmt: skip
    weight = step["2.weight"]
    assert (weight.optimizer, weight.group, weight.lr, weight.weight_decay) == (0, 1, 0.5, 0)
    assert (weight.state_steps, weight.training, weight.grad, weight.frozen) == (1, False, "nonzero", None)
    assert weight.grad_max == pytest.approx(float(net[2].weight.grad.abs().max()))
    delta = (net[2].weight - before["2.weight"]).detach()
    assert weight.delta_norm == pytest.approx(float(delta.norm()))
    assert weight.delta_max == pytest.approx(float(delta.abs().max()))
    assert weight.update_ratio == pytest.approx(float(delta.norm() / before["2.weight"].norm()))
    bias = step["2.bias"]
    assert (bias.optimizer, bias.group, bias.lr, bias.reason) == (None, None, None, Reason.NOT_IN_OPTIMIZER)
    assert step["1.running_mean"].reason is Reason.FORWARD
    assert set(step.stayed) == {"1.weight", "1.bias", "2.bias"}


def test_watching_changes_nothing_and_leaves_no_hook():
    def run(watched):
        net = net_with_norm()
        optimizer = OPTIM.SGD(net.parameters(), lr=0.1, momentum=0.9)
        torch.manual_seed(3)
        if not watched:
            for _ in range(3):
                train_step(net, optimizer)
        else:
            with watch(net, optimizer):
                for _ in range(3):
                    train_step(net, optimizer)
        return net, optimizer

    plain, _ = run(False)
    net, optimizer = run(True)
    for a, b in zip(plain.state_dict().values(), net.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_hooks_go_after_an_exception_and_the_model_is_let_go():
    net = net_with_norm()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="mine"), watch(net, optimizer) as ledger:
        train_step(net, optimizer)
        raise RuntimeError("mine")
    assert len(ledger) == 1
    assert not optimizer._optimizer_step_pre_hooks
    assert not any(m._forward_hooks for m in net.modules())
    gone = weakref.ref(net[0].weight)
    del net, optimizer
    gc.collect()
    assert gone() is None
    assert ledger[0]["0.weight"].moved
    with pytest.raises(RuntimeError, match="watch\\(\\) again"), ledger:
        pass


def test_two_optimizers_one_model():
    net = net_with_norm()
    first = OPTIM.SGD(net[0].parameters(), lr=0.1)
    second = OPTIM.Adam(net[2].parameters(), lr=0.1)
    with watch(net, first, second) as ledger:
        net(torch.randn(6, 3)).square().mean().backward()
        first.step()
        second.step()
    assert [(s.optimizer, s.optimizer_type) for s in ledger] == [(0, "SGD"), (1, "Adam")]
    one, two = ledger
    assert one["0.weight"].reason is Reason.GRADIENT
    assert one["2.weight"].reason is Reason.NOT_IN_OPTIMIZER
    assert one["2.weight"].optimizer == 1
    assert two["0.weight"].reason is Reason.NOT_IN_OPTIMIZER
    assert two["2.weight"].reason is Reason.GRADIENT
    assert ("in-no-optimizer", "2.weight") not in codes(ledger.alarms)
    assert ("in-no-optimizer", "1.weight") in codes(ledger.alarms)


def test_an_edit_outside_the_step_is_seen_even_through_data():
    net = net_with_norm()
    optimizer = OPTIM.SGD(net[2].parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        train_step(net, optimizer)
        net[0].weight.data[1, 1] += 1e-6
        net[2].weight.data.mul_(2)
        net[1].running_mean.data.add_(1)
        net.eval()
        train_step(net, optimizer)
    step = ledger[1]
    assert step["0.weight"].reason is Reason.OUTSIDE
    assert step["0.weight"].delta_max == pytest.approx(1e-6, rel=0.1)
    assert step["2.weight"].reason is Reason.GRADIENT
    assert step["2.weight"].moved_outside
    assert step["1.running_mean"].reason is Reason.OUTSIDE
    assert step["1.running_var"].reason is Reason.UNTOUCHED
    assert not step["0.bias"].moved


@pytest.mark.parametrize("by_keyword", [False, True])
@pytest.mark.parametrize("cls", [OPTIM.SGD, OPTIM.Adam])
def test_closures_are_explained(cls, by_keyword):
    net = net_with_norm()
    optimizer = cls(net.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = net(torch.ones(6, 3) + torch.arange(6.0)[:, None]).square().mean()
        loss.backward()
        return loss

    with watch(net, optimizer) as ledger:
        for _ in range(2):
            loss = optimizer.step(closure=closure) if by_keyword else optimizer.step(closure)
            assert loss.item() > 0
    for step in ledger:
        assert step["2.weight"].reason is Reason.GRADIENT
        assert step["1.running_mean"].reason is Reason.FORWARD


class Breaks(OPTIM.SGD):
    @torch.no_grad()
    def step(self, closure=None):
        if closure is not None:
            with torch.enable_grad():
                closure()
        self.param_groups[0]["params"][0].add_(1.0)
        raise ArithmeticError("half way")


@pytest.mark.parametrize("in_closure", [False, True])
def test_a_step_that_raises_is_an_entry_of_its_own(in_closure):
    net = net_with_norm()
    broken, sound = Breaks(net.parameters(), lr=0.1), OPTIM.SGD(net.parameters(), lr=0.1)

    def closure():
        raise ArithmeticError("in the closure")

    with watch(net, broken, sound) as ledger:
        net(torch.randn(6, 3)).square().mean().backward()
        with pytest.raises(ArithmeticError):
            broken.step(closure) if in_closure else broken.step()
        train_step(net, sound)
    assert [(s.optimizer, s.completed) for s in ledger] == [(0, False), (1, True)]
    assert ledger[0]["0.weight"].moved != in_closure
    assert ledger[0]["0.weight"].reason is Reason.UNKNOWN
    assert ledger[1]["0.weight"].reason is Reason.GRADIENT


def test_a_step_that_raises_at_the_end_is_entered_on_leaving():
    net = net_with_norm()
    optimizer = Breaks(net.parameters(), lr=0.1)
    with pytest.raises(ArithmeticError), watch(net, optimizer) as ledger:
        net(torch.randn(6, 3)).square().mean().backward()
        optimizer.step()
    assert [s.completed for s in ledger] == [False]
    assert ledger[0]["0.weight"].moved


@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler_skips(fused):
    net = net_with_norm()
    optimizer = OPTIM.Adam(net.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with watch(net, optimizer) as ledger:
        for bad in (False, True, False):
            optimizer.zero_grad()
            loss = net(torch.randn(6, 3)).square().mean() * (float("inf") if bad else 1)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    if fused:  # a fused optimizer is called, and told to skip
        assert [len(s.moved) > 3 for s in ledger] == [True, False, True]
        assert ledger[1]["0.weight"].reason is Reason.SKIPPED
    else:  # any other is not called at all
        assert len(ledger) == 2
    assert ledger[0]["2.weight"].reason is Reason.GRADIENT
    assert ledger[-1]["2.weight"].reason is Reason.GRADIENT


class Wrapper(OPTIM.Optimizer):
    """One that holds the optimizer and was not made as an Optimizer, as accelerate's."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self, closure=None):
        return self.optimizer.step(closure)


def test_of_a_wrapper_the_optimizer_inside_is_watched():
    net = net_with_norm()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    wrapper = Wrapper(Wrapper(optimizer))
    with watch(net, wrapper) as ledger:
        net(torch.randn(6, 3)).square().mean().backward()
        wrapper.step()
    assert [(step.optimizer_type, step.optimizer) for step in ledger] == [("SGD", 0)]
    assert ledger[0]["2.weight"].reason is Reason.GRADIENT
    assert not optimizer._optimizer_step_pre_hooks


def test_a_group_added_midway():
    net = net_with_norm()
    optimizer = OPTIM.SGD(net[0].parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        train_step(net, optimizer)
        optimizer.add_param_group({"params": list(net[2].parameters()), "lr": 0.5})
        train_step(net, optimizer)
    assert ledger[0]["2.weight"].reason is Reason.NOT_IN_OPTIMIZER
    assert (ledger[1]["2.weight"].group, ledger[1]["2.weight"].lr) == (1, 0.5)
    assert ledger[1]["2.weight"].reason is Reason.GRADIENT


def test_a_layer_replaced_midway_is_named():
    net = net_with_norm()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        train_step(net, optimizer)
        net[2] = nn.Linear(4, 5)
        train_step(net, optimizer)
    new = ledger[1]["2.weight"]
    assert (new.info.shape, new.moved, new.reason) == ((5, 4), False, Reason.NOT_IN_OPTIMIZER)
    alarm = next(a for a in ledger.alarms if a.code == "layer-replaced")
    assert alarm.name == "2"
    assert "2.weight" in alarm.what
    assert ("in-no-optimizer", "2.weight") in codes(ledger.alarms)


def test_sparse_gradients():
    torch.manual_seed(0)
    net = nn.Embedding(10, 3, sparse=True)
    optimizer = OPTIM.SparseAdam(net.parameters(), lr=0.1)
    with watch(net, optimizer, keep="all") as ledger:
        for rows in ([1, 2], [5, 5]):
            optimizer.zero_grad()
            net(torch.tensor(rows)).sum().backward()
            optimizer.step()
    assert [s["weight"].grad for s in ledger] == ["nonzero", "nonzero"]
    assert [s["weight"].reason for s in ledger] == [Reason.GRADIENT] * 2
    delta = ledger.values(1, "weight").after - ledger.values(1, "weight").before
    assert delta.abs().sum(1).nonzero().flatten().tolist() == [5]


def test_tied_weights_are_one_row_with_all_their_names():
    net = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    net["head"].weight = net["embed"].weight
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        net["head"](net["embed"](torch.tensor([1]))).sum().backward()
        optimizer.step()
    assert list(ledger[0]) == ["embed.weight"]
    assert ledger[0]["head.weight"] is ledger[0]["embed.weight"]
    assert ledger[0]["head.weight"].info.names == ("embed.weight", "head.weight")
    with pytest.raises(KeyError, match=r"near names: embed\.weight"):
        ledger[0]["embed.wieght"]


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128]
)
def test_other_dtypes(dtype):
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(3, 2, dtype=torch.complex64 if dtype.is_complex else None).to(dtype))
    net = nn.Module()
    net.w = parameter
    optimizer = OPTIM.SGD(net.parameters(), lr=0.25, momentum=0.5)
    with watch(net, optimizer, keep="all") as ledger:
        for zero in (False, True):
            parameter.grad = torch.zeros_like(parameter) if zero else torch.ones_like(parameter)
            optimizer.step()
    values = ledger.values(0, "w")
    delta = (values.after - values.before).abs().double()
    assert ledger[0]["w"].reason is Reason.GRADIENT
    assert ledger[0]["w"].delta_norm == pytest.approx(float(delta.norm()), rel=2e-2)
    assert ledger[1]["w"].reason is Reason.MOMENTUM
    assert ledger[0]["w"].info.dtype == str(dtype).removeprefix("torch.")


def test_nan_and_inf():
    net = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        net.weight[0, 0] = float("nan")
        net.weight[1, 1] = float("inf")
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        net.weight.grad = None
        optimizer.step()
        net.weight.grad = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        optimizer.step()
        net.weight.grad = torch.tensor([[0.0, float("nan")], [0.0, 0.0]])
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.0
        net.weight.grad = torch.tensor([[0.0, 0.0], [float("nan"), 0.0]])
        optimizer.step()
    still, moved, poisoned, at_zero = (s["weight"] for s in ledger)
    assert (still.moved, still.reason) == (False, Reason.NO_GRADIENT)  # NaN equals itself
    assert (moved.moved, moved.reason) == (True, Reason.GRADIENT)
    assert (poisoned.grad, poisoned.reason) == ("nonfinite", Reason.GRADIENT)
    assert at_zero.moved  # 0 × NaN is NaN: lr = 0 does not protect
    assert ("nonfinite-gradient", "weight") in codes(ledger.alarms)


def test_channels_last_and_non_contiguous_parameters():
    torch.manual_seed(0)
    net = nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last)
    net.extra = nn.Parameter(torch.randn(6, 4).t())
    optimizer = OPTIM.Adam(net.parameters(), lr=0.1)
    with watch(net, optimizer, explain=64) as ledger:
        for _ in range(2):
            optimizer.zero_grad()
            loss = net(torch.randn(2, 8, 5, 5).to(memory_format=torch.channels_last)).square().mean()
            (loss + net.extra.square().sum()).backward()
            before = net.weight.detach().clone()
            optimizer.step()
    assert ledger[-1]["weight"].delta_norm == pytest.approx(float((net.weight.detach() - before).norm()))
    assert {t.reason for s in ledger for t in s.values()} == {Reason.GRADIENT}


def test_copies_of_a_watched_model_are_not_watched():
    net = net_with_norm()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        twin = copy.deepcopy(net)
        thawed = pickle.loads(pickle.dumps(net))
        for other in (twin, thawed):
            other(torch.randn(6, 3))
        net.eval()
        train_step(net, optimizer)
    assert ledger[0]["1.running_mean"].reason is Reason.UNTOUCHED


def test_values_kept():
    net = net_with_norm()
    optimizer = OPTIM.Adam(net.parameters(), lr=0.1)
    with watch(net, optimizer, keep=[1]) as ledger:
        for _ in range(3):
            before = net[0].weight.detach().clone()
            train_step(net, optimizer)
            if len(ledger) == 2:
                expected = (before, net[0].weight.detach().clone(), net[0].weight.grad.clone())
    values = ledger.values(1, "0.weight")
    for kept, real in zip((values.before, values.after, values.gradient), expected, strict=True):
        assert torch.equal(kept, real)
    assert set(values.state) == {"step", "exp_avg", "exp_avg_sq"}
    assert ledger.kept_steps == [1]
    with pytest.raises(KeyError, match=r"keep=\[2\]"):
        ledger.values(2, "0.weight")


def test_memory_is_bounded_by_default():
    """The default keeps small tensors of the newest steps only, whatever the length of the run."""
    net = nn.Sequential(nn.Linear(100, 100), nn.Linear(300, 100))
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    net[0].bias.grad.zero_()
    with watch(net, optimizer) as ledger:
        for _ in range(700):
            optimizer.step()
    held = [(step, name) for step in ledger.kept_steps for name in ledger[0] if _kept(ledger, step, name)]
    assert {name for _, name in held} == {"0.weight", "0.bias", "1.bias"}
    storages = {}
    for where in held:
        values = ledger.values(*where)
        for tensor in (values.before, values.after, values.gradient, *values.parts.values()):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()  # also what a view keeps alive
    assert sum(storages.values()) <= 64 * 2**20
    assert 1 < len(ledger.kept_steps) < 700
    assert ledger.kept_steps[-1] == 699


def _kept(ledger, step, name):
    try:
        return ledger.values(step, name)
    except KeyError:
        return None


def test_rows_are_plain():
    net = net_with_norm()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        train_step(net, optimizer)
    rows = ledger.rows()
    assert len(rows) == len(ledger[0])
    assert {type(v) for row in rows for v in row.values()} <= {str, int, float, bool, tuple, type(None)}
    assert rows[0]["reason"] == "gradient"
    assert rows[0]["step"] == 0


def test_bad_input():
    net = net_with_norm()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    scheduler = OPTIM.lr_scheduler.StepLR(optimizer, 1)
    for call, error, message in [
        (lambda: watch(net), ValueError, "needs the optimizer"),
        (lambda: watch(optimizer, net), TypeError, "torch.nn.Module, not SGD"),
        (lambda: watch(net, scheduler), TypeError, "StepLR; give it the scheduler's optimizer"),
        (lambda: watch(net, optimizer, optimizer), ValueError, "twice"),
        (lambda: watch(net, optimizer, Wrapper(optimizer)), ValueError, "twice"),
        (lambda: watch(net, Wrapper(None)), TypeError, "Wrapper has no step hooks"),
        (lambda: watch(net, optimizer, keep="some"), ValueError, "keep='some'"),
        (lambda: watch(net, optimizer, keep=[-1]), ValueError, "-1"),
        (lambda: watch(net, optimizer, keep=3), TypeError, "int"),
        (lambda: watch(net, optimizer, explain=0), ValueError, "explain=0"),
        (lambda: watch(nn.Linear(2, 2, device="meta"), optimizer), ValueError, "weight lies on the meta"),
        (lambda: watch(nn.LazyLinear(2), optimizer), ValueError, "weight is not initialised"),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_data_parallel_names_are_the_models_own():
    net = net_with_norm()
    wrapped = nn.DataParallel(net)
    optimizer = OPTIM.SGD(wrapped.parameters(), lr=0.1)
    with watch(wrapped, optimizer) as ledger:
        train_step(wrapped, optimizer)
    assert next(iter(ledger[0])) == "0.weight"
    assert ledger[0]["1.running_mean"].reason is Reason.FORWARD


def test_parameters_changed_to_another_dtype_midway():
    net = net_with_norm()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        train_step(net, optimizer)
        net.double()
        train_step(net, optimizer, torch.randn(6, 3, dtype=torch.float64))
    assert ledger[1]["0.weight"].reason is Reason.GRADIENT
    assert ledger[1]["0.weight"].moved


def test_a_flag_that_was_set_back_by_hand_is_not_frozen():
    """A handle that still holds the layer does not make it frozen: the flag is what counts."""
    net = nn.Linear(2, 2)
    handle = freeze(net, "*")
    net.requires_grad_(True)
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert [t.frozen for t in ledger[0].values()] == [None, None]
    assert ledger.alarms == []
    handle.release()
