"""The audit of a model's end beside its loss, on what the loss really does with it."""

import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from audited import cured, the
from torch import nn

from layerlab.auditing import audit

SGD = torch.optim.SGD


def ending_in(*ends):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), *ends)


def perfect(model):
    """Weights with which every one of four inputs gets its own class, beyond doubt."""
    with torch.no_grad():
        model[0].weight.copy_(1000 * torch.eye(4))
        model[0].bias.zero_()
    return torch.eye(4), torch.arange(4)


def gradient(model, loss):
    """The size of the gradient that the weights start with."""
    model.zero_grad()
    loss(model(torch.eye(4)), torch.arange(4)).backward()
    return model[0].weight.grad.norm()


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(), F.cross_entropy, nn.CrossEntropyLoss(reduction="mean")]
)
def test_softmax_before_cross_entropy(loss):
    model = ending_in(nn.Softmax(dim=-1))
    optimizer = SGD(model.parameters(), lr=0.1)
    finding = the(audit(model, optimizer, loss=loss), "double-softmax", "error")
    assert finding.names == ("1",)
    assert gradient(model, loss) < gradient(model[:1], loss)
    model.zero_grad()
    x, y = perfect(model)
    floor = math.log(math.e + 3) - 1  # −log softmax of (1, 0, 0, 0) at its largest
    assert loss(model(x), y).item() == pytest.approx(floor)
    assert floor == pytest.approx(0.7437, abs=1e-4)
    cured(finding, model=model)
    assert loss(model(x), y).item() == 0
    assert not audit(model, optimizer, loss=loss)


class EndsInside(nn.Module):
    """Applies its softmax (or nothing) in forward, where no module shows it."""

    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.end = nn.Linear(4, 4), end

    def forward(self, x):
        return self.end(self.linear(x))


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), F.cross_entropy])
def test_softmax_in_forward_shows_on_a_batch(loss):
    model, x, y = EndsInside(lambda z: z.softmax(1)), torch.eye(4), torch.arange(4)
    optimizer = SGD(model.parameters(), lr=0.1)
    assert not audit(model, optimizer, loss=loss)  # without a batch nothing of it is seen
    finding = the(audit(model, optimizer, loss=loss, batch=x), "double-softmax", "warning")
    right = F.cross_entropy(model.linear(x), y)
    assert loss(model(x), y) != right
    own = cured(finding)["loss"]
    torch.testing.assert_close(own(model(x), y), right)


@pytest.mark.parametrize(
    "end",
    [
        nn.Identity(),
        torch.sigmoid,
        torch.relu,
        lambda z: z[:, 0],
        lambda z: (z.softmax(1), z),  # attention weights beside the output
        lambda z: {"probabilities": z.softmax(1), "logits": z},
        lambda z: z.to_sparse(),
    ],
)
def test_other_outputs_on_a_batch_are_no_probabilities(end):
    model = EndsInside(end)
    optimizer = SGD(model.parameters(), lr=0.1)
    assert not audit(model, optimizer, loss=nn.CrossEntropyLoss(), batch=torch.eye(4))


def test_a_loss_that_cannot_be_hashed():
    @dataclass
    class Loss:
        weight: float = 1.0

        def __call__(self, output, target):
            return self.weight * F.cross_entropy(output, target)

    model = EndsInside(nn.Identity())
    assert not audit(model, SGD(model.parameters(), lr=0.1), loss=Loss(), batch=torch.eye(4))


def test_a_softmax_that_a_module_shows_is_found_once():
    model = ending_in(nn.Softmax(dim=-1))
    found = audit(model, SGD(model.parameters(), lr=0.1), loss=nn.CrossEntropyLoss(), batch=torch.eye(4))
    assert found.codes == ("double-softmax",)
    assert len(found) == 1


def test_sigmoid_before_a_loss_with_logits():
    model, loss = ending_in(nn.Sigmoid()), nn.BCEWithLogitsLoss()
    optimizer = SGD(model.parameters(), lr=0.1)
    finding = the(audit(model, optimizer, loss=loss), "double-softmax", "error")
    x, _ = perfect(model)
    assert loss(model(x), torch.eye(4)).item() > 0.3
    cured(finding, model=model)
    assert not audit(model, optimizer, loss=loss)


def test_softmax_before_nll_loss():
    model, loss = ending_in(nn.Softmax(dim=-1)), nn.NLLLoss()
    finding = the(audit(model, loss=loss), "double-softmax", "error")
    x, y = perfect(model)
    assert loss(model(x), y).item() == -1  # a likelihood would be 1, and its logarithm 0
    cured(finding, model=model)
    assert not audit(model, loss=loss)


def test_log_softmax_before_cross_entropy_is_only_computed_twice():
    model, loss = ending_in(nn.LogSoftmax(dim=-1)), nn.CrossEntropyLoss()
    finding = the(audit(model, loss=loss), "double-softmax", "note")
    x, y = torch.randn(5, 4), torch.randint(0, 4, (5,))
    before = loss(model(x), y)
    cured(finding, model=model)
    torch.testing.assert_close(loss(model(x), y), before)
    assert not audit(model, loss=loss)


def test_softmax_last_is_a_note_when_the_loss_is_not_known():
    model = ending_in(nn.Sequential(nn.Tanh(), nn.Softmax(dim=-1)))
    finding = the(audit(model), "double-softmax", "note")
    assert finding.names == ("1.1",)
    cured(finding, model=model)
    assert not audit(model)


class Own(nn.Module):
    """A model with a softmax and a loss of its own."""

    def __init__(self, end, loss):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.end, self.loss = end, loss

    def forward(self, x, y):
        return self.loss(self.end(self.body(x)), y)


def test_a_model_that_holds_its_loss():
    model = Own(nn.Softmax(dim=-1), nn.CrossEntropyLoss())
    finding = the(audit(model), "double-softmax", "warning")  # what is listed last may not be the output
    x, y = torch.eye(4), torch.arange(4)
    with torch.no_grad():
        model.body.weight.copy_(1000 * torch.eye(4))
        model.body.bias.zero_()
    assert model(x, y).item() > 0.7
    cured(finding, model=model)
    assert model(x, y).item() == 0
    assert not audit(model)


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (ending_in(), nn.CrossEntropyLoss()),
        (ending_in(nn.LogSoftmax(dim=-1)), nn.NLLLoss()),
        (ending_in(nn.Sigmoid()), nn.BCELoss()),
        (ending_in(nn.Softmax(dim=-1)), nn.MSELoss()),
        (ending_in(nn.Softmax(dim=-1), nn.Linear(4, 4)), nn.CrossEntropyLoss()),
        (Own(nn.LogSoftmax(dim=-1), nn.NLLLoss()), None),
        (nn.Sequential(nn.ModuleDict({"softmax": nn.Softmax(dim=-1)})), nn.CrossEntropyLoss()),
    ],
)
def test_ends_that_suit_their_loss_are_no_finding(model, loss):
    assert not audit(model, loss=loss)


@pytest.mark.parametrize("name", ["end", "my-end", "class"])
def test_the_cure_reaches_an_end_of_any_name(name):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.add_module(name, nn.Softmax(-1))

        def forward(self, x):
            return self.get_submodule(name)(self.first(x))

    model = Net()
    finding = the(audit(model, SGD(model.parameters(), lr=0.1), loss=F.cross_entropy), "double-softmax")
    cured(finding, model=model)
    assert isinstance(model.get_submodule(name), nn.Identity)
