"""Training runs: bitwise the same however they are stopped, and against a loop written by hand."""

import copy
import errno
from functools import partial

import made_data
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from layerlab.freezing import freeze
from layerlab.training import Features, Run, cached_features, evaluate, hardware, run, saving, threads

Data = partial(made_data.Data, shape=(3, 6, 6), classes=3)


class Net(nn.Module):
    """A small ResNet in kind: convolution, BatchNorm, Dropout, and a head named fc."""

    def __init__(self, dropout=0.5):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout))
        self.fc = nn.Linear(8, 3)

    def forward(self, images):
        return self.fc(self.body(images).mean((2, 3)))


def make(tmp_path=None, *, examples=21, name="run.pt", **options):
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    save_to = tmp_path / name if tmp_path is not None else None
    options = {"batch_size": 5, "scheduler": scheduler, "save_to": save_to, **options}
    return Run(net, optimizer, Data(examples), Data(10, seed=1), **options)


def everything(run):
    """All that makes a run what it is, to be compared bit by bit."""
    state = run.optimizer.state_dict()
    tensors = [*run.model.state_dict().values()]
    tensors += [value["momentum_buffer"] for value in state["state"].values()]
    figures = [
        (e.number, e.train_loss, e.train_accuracy, e.test_loss, e.test_accuracy, e.lrs) for e in run.history
    ]
    return tensors, (figures, state["param_groups"], run.scheduler.state_dict())


def same(one, other):
    tensors, rest = everything(one)
    others, more = everything(other)
    return len(tensors) == len(others) and all(map(torch.equal, tensors, others)) and rest == more


def finish(run, until=5):
    for _ in run.epochs(until):
        pass
    return run


@pytest.fixture(scope="module")
def whole():
    return finish(make())


def test_a_run_is_the_loop_one_would_write(whole):
    """Shuffled batches, zero_grad, backward, step, the scheduler once an epoch, then eval mode."""
    torch.manual_seed(0)
    net, data, test = Net(), Data(21), Data(10, seed=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(1, 6):
        order = torch.randperm(21, generator=torch.Generator().manual_seed(epoch))
        torch.manual_seed(epoch)  # Dropout's
        net.train()
        losses, right = 0.0, 0
        for part in (order[:5], order[5:10], order[10:15], order[15:]):  # the 21st joins the last five
            optimizer.zero_grad()
            outputs = net(data.inputs[part])
            loss = cross_entropy(outputs, data.labels[part])
            loss.backward()
            optimizer.step()
            losses += loss.item() * len(part)
            right += int((outputs.argmax(1) == data.labels[part]).sum())
        lr = optimizer.param_groups[0]["lr"]
        optimizer.param_groups[0]["lr"] = 0.1 * 0.5 ** (epoch // 2)
        net.eval()
        with torch.no_grad():
            outputs = net(test.inputs)
        record = whole.history[epoch - 1]
        assert (record.number, record.lrs) == (epoch, (lr,))
        assert record.train_loss == pytest.approx(losses / 21, rel=1e-6)
        assert record.train_accuracy == pytest.approx(right / 21)
        assert record.test_loss == pytest.approx(cross_entropy(outputs, test.labels).item(), rel=1e-5)
        assert record.test_accuracy == pytest.approx(int((outputs.argmax(1) == test.labels).sum()) / 10)
    assert all(map(torch.equal, net.state_dict().values(), whole.model.state_dict().values()))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(whole):
    assert same(finish(make()), whole)
    assert not same(finish(make(seed=1)), whole)


def test_the_caller_s_random_state_is_left_alone():
    run = make()
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    finish(run, 2)
    assert torch.equal(torch.randn(3), expected)


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_run_stopped_after_any_epoch_and_resumed_from_its_file_is_the_same(stop, tmp_path, whole):
    for epoch in make(tmp_path).epochs(5):
        if epoch.number == stop:
            break
    torch.manual_seed(99)  # another process, another random state
    again = make(tmp_path)
    assert again.resume()
    assert [epoch.number for epoch in again.history] == list(range(1, stop + 1))
    assert same(finish(again), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("where", ["first step", "last step", "measuring"])
def test_an_epoch_that_does_not_end_never_was(where, error, whole, monkeypatch):
    run_ = make()
    finish(run_, 2)
    calls = []

    def fail(*_, **__):
        calls.append(1)
        if len(calls) == {"first step": 1, "last step": 4, "measuring": 1}[where]:
            raise error

    before = copy.deepcopy(everything(run_))
    if where == "measuring":
        monkeypatch.setattr(run, "evaluate", fail)
    else:
        run_.optimizer.register_step_post_hook(fail)
    with pytest.raises(error):
        next(run_.epochs(5))
    monkeypatch.undo()
    now = everything(run_)
    assert all(map(torch.equal, before[0], now[0]))
    assert before[1] == now[1]
    calls += [1] * 10
    assert same(finish(run_), whole)


@pytest.mark.parametrize("taken", [1, 3, 4, 5, 7])
def test_left_in_the_middle_of_an_epoch_it_begins_that_epoch_anew(taken, whole):
    run_ = make()
    steps = run_.steps(5)
    for _ in range(taken):
        next(steps)
    steps.close()
    assert len(run_.history) == (taken == 5 or taken > 5)
    assert same(finish(run_), whole)


def test_other_code_may_run_and_draw_between_two_steps(whole):
    run_, taken = make(), 0
    torch.manual_seed(7)
    drawn = []
    for epoch in run_.steps(5):
        taken += epoch is None
        drawn.append(torch.rand(1).item())
    torch.manual_seed(7)
    assert drawn == [torch.rand(1).item() for _ in range(5 * 4 + 5)]
    assert taken == 5 * 4
    assert same(run_, whole)


def test_a_full_disk_costs_nothing_but_the_file(tmp_path, whole, monkeypatch):
    run_ = make(tmp_path)
    finish(run_, 2)
    saved = (tmp_path / "run.pt").read_bytes()

    def full(state, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        finish(run_)
    monkeypatch.undo()
    assert (tmp_path / "run.pt").read_bytes() == saved
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]
    assert same(finish(run_), whole)  # the epoch that could not be saved is done all the same


def test_measuring_only_now_and_then_changes_nothing_else(whole):
    run_ = finish(make(test_every=2, about={}))
    assert [epoch.test_accuracy is not None for epoch in run_.history] == [False, True, False, True, True]
    assert run_.history[3].test_loss == whole.history[3].test_loss
    assert [epoch.train_loss for epoch in run_.history] == [epoch.train_loss for epoch in whole.history]
    alone = make()
    alone.test = None
    assert finish(alone).history[-1].test_accuracy is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": 1}, "another run: seed was 0 there, here it is 1"),
        ({"batch_size": 6}, "another run: batch size was 5 there, here it is 6"),
        ({"about": {"setting": "frozen"}}, "another run: setting was None there, here it is 'frozen'"),
        ({"scheduler": None}, "only one of the two has a scheduler"),
    ],
)
def test_another_run_s_file_is_refused(options, said, tmp_path):
    finish(make(tmp_path), 1)
    other = make(tmp_path, **options)
    before = copy.deepcopy(other.model.state_dict())
    with pytest.raises(ValueError, match=said):
        other.resume()
    assert all(map(torch.equal, before.values(), other.model.state_dict().values()))
    assert other.history == []


def test_another_model_s_or_optimizer_s_file_is_refused(tmp_path):
    finish(make(tmp_path), 1)
    other = make(tmp_path)
    other.model.fc = nn.Linear(8, 2)
    with pytest.raises(ValueError, match=r"another model: fc.weight is \(3, 8\) there, here \(2, 8\)"):
        other.resume()
    other = make(tmp_path)
    other.optimizer = torch.optim.SGD([{"params": [p]} for p in other.model.parameters()], lr=0.1)
    with pytest.raises(ValueError, match=r"another optimizer: groups of \[6\] parameters"):
        other.resume()


@pytest.mark.parametrize("content", [b"", b"not a run", b"PK\x03\x04 cut off"])
def test_a_file_that_is_none_is_refused_and_kept(content, tmp_path):
    (tmp_path / "run.pt").write_bytes(content)
    with pytest.raises(ValueError, match="no saved run"):
        make(tmp_path).resume()
    assert (tmp_path / "run.pt").read_bytes() == content


def test_a_tensor_of_one_s_own_is_no_saved_run(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="no saved run"):
        make(tmp_path).resume()


def test_without_a_file_there_is_nothing_to_resume(tmp_path):
    assert not make(tmp_path).resume()
    assert not make().resume()


def test_a_schedule_may_step_with_the_optimizer(tmp_path):
    def begin():
        run = make(tmp_path, schedule="step", scheduler=None)
        run.scheduler = torch.optim.lr_scheduler.OneCycleLR(run.optimizer, 0.1, total_steps=12)
        return run

    lrs = []
    first = begin()
    lrs += [first.optimizer.param_groups[0]["lr"] for epoch in first.steps(1) if epoch is None]
    again = begin()
    again.resume()
    lrs += [again.optimizer.param_groups[0]["lr"] for epoch in again.steps(3) if epoch is None]
    alone = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    cycle = torch.optim.lr_scheduler.OneCycleLR(alone, 0.1, total_steps=12)
    expected = []
    for _ in range(12):
        alone.step()
        cycle.step()
        expected.append(alone.param_groups[0]["lr"])
    assert lrs == expected


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"test_every": 0}, {"examples": 0}, {"schedule": "batch"}]
)
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match=r"must be at least 1|no example|neither 'epoch' nor 'step'"):
        make(**options)


def test_evaluate_is_one_pass_in_eval_mode_and_puts_modes_back():
    torch.manual_seed(0)
    net, data = Net(), Data(33)
    net.train()
    net.body[1].eval()
    before = copy.deepcopy(net.state_dict())
    score = evaluate(net, data, batch_size=8)
    assert net.training
    assert (net.body[1].training, net.body[3].training) == (False, True)
    assert all(map(torch.equal, before.values(), net.state_dict().values()))
    net.eval()
    with torch.no_grad():
        outputs = net(data.inputs)
    assert score.loss == pytest.approx(cross_entropy(outputs, data.labels).item(), rel=1e-5)
    assert score.accuracy == pytest.approx((outputs.argmax(1) == data.labels).float().mean().item())
    with pytest.raises(ValueError, match="no example"):
        evaluate(net, Data(0))


def train_head(net, cached):
    """Train the head of a frozen body for three epochs: through the body, or on its features."""
    torch.manual_seed(7)
    net = copy.deepcopy(net)
    handle = freeze(net, "body")
    net.body[3].eval()  # Dropout draws anew in every epoch: there is nothing to cache while it does
    data = Data(21)
    learner, train = (net.fc, cached_features(net, "fc", data, batch_size=5)) if cached else (net, data)
    if not cached:
        net.body[3].train = lambda mode=True: net.body[3]
    asked = data.asked
    optimizer = torch.optim.SGD(net.fc.parameters(), lr=0.1, momentum=0.9)
    finish(Run(learner, optimizer, train, batch_size=5), 3)
    assert (data.asked > asked) != cached  # no image is looked at again
    handle.release()
    return net.fc


def test_a_head_on_cached_features_gets_bitwise_the_weights_it_gets_without():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.body[1].running_mean.normal_()
    one, other = train_head(net, cached=True), train_head(net, cached=False)
    assert not torch.equal(one.weight, net.fc.weight)
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)


def test_cached_features_leave_the_model_as_it_is():
    net, data = Net(), Data(12)
    net.body[1].eval()
    before = copy.deepcopy(net.state_dict())
    features = cached_features(net, "fc", data, batch_size=5)
    assert isinstance(features, Features)
    assert features.vectors.shape == (12, 8)
    assert torch.equal(features.labels, data.labels)
    assert (net.training, net.body[1].training) == (True, False)
    assert not net.fc._forward_pre_hooks
    assert all(map(torch.equal, before.values(), net.state_dict().values()))
    assert not features.vectors.requires_grad


def test_a_head_that_is_not_the_last_module_is_refused():
    class Softmax(Net):
        def forward(self, images):
            return super().forward(images).softmax(1)

    class Twice(Net):
        def forward(self, images):
            return super().forward(images) + super().forward(images)

    for net, said in ((Softmax(), "something comes after it"), (Twice(), "called 2 times")):
        with pytest.raises(ValueError, match=said):
            cached_features(net, "fc", Data(4))
        assert not net.fc._forward_pre_hooks
        assert net.training
    with pytest.raises(AttributeError):
        cached_features(Net(), "head", Data(4))
    with pytest.raises(ValueError, match="no example"):
        cached_features(Net(), "fc", Data(0))


def test_hardware_is_said_in_words():
    assert hardware() == f"CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)}"


def test_threads_are_put_back_also_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), threads(1):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before
