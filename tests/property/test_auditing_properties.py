"""An audit changes nothing, whatever it looks at: every bit is as it was, and so is a second answer."""

import random

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler as lrs

from layerlab.auditing import audit
from layerlab.compare import same_bits
from layerlab.freezing import freeze

OPTIM = torch.optim
OPTIMIZERS = [
    lambda groups: OPTIM.SGD(groups, lr=0.1),
    lambda groups: OPTIM.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01),
    lambda groups: OPTIM.AdamW(groups, lr=0.1, amsgrad=True),
    lambda groups: OPTIM.Rprop(groups, lr=0.1),
    lambda groups: OPTIM.ASGD(groups, lr=0.1),
    lambda groups: OPTIM.Adafactor(groups, lr=0.1),
]
SCHEDULERS = [
    lambda o: lrs.StepLR(o, 2),
    lambda o: lrs.CosineAnnealingLR(o, 5, eta_min=0.2),
    lambda o: lrs.LambdaLR(o, lambda epoch: epoch / 3),
    lambda o: lrs.ReduceLROnPlateau(o, patience=1),
    lambda o: lrs.SequentialLR(o, [lrs.ConstantLR(o), lrs.ExponentialLR(o, 0.9)], [2]),
    lambda o: lrs.OneCycleLR(o, 0.3, total_steps=30, cycle_momentum=False),
]
PARTS = ["0", "1", "3", "5", "0.weight", "5.bias"]
BAD = [None, 0.0, float("nan"), float("inf")]


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4),
        nn.BatchNorm1d(4),
        nn.Dropout(0.3),
        nn.Linear(4, 4),
        nn.Tanh(),
        nn.Linear(4, 2),
        nn.Softmax(-1),
    )


def flat(value, path=""):
    """Every plain fact and tensor in dicts and lists, however deep, by its place."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from flat(one, f"{path}/{key if isinstance(key, str) else id(key)}")
    elif isinstance(value, (list, tuple)):
        for place, one in enumerate(value):
            yield from flat(one, f"{path}/{place}")
    else:
        yield path, value if isinstance(value, (int, float, str, bool, type(None))) else id(value)


def photograph(model, optimizers, schedulers, x):
    """All that an audit could touch, tensors copied."""
    everything = {
        "modules": [
            {key: value for key, value in vars(m).items() if key not in ("_parameters", "_buffers")}
            for m in model.modules()
        ],
        "values": list(model.state_dict().items()),
        "tensors": [
            (id(p), p.requires_grad, p.grad, id(p.grad), dict(vars(p)), p._version)
            for p in model.parameters()
        ],
        "optimizers": [dict(vars(o)) for o in optimizers],
        "schedulers": [dict(vars(s)) for s in schedulers],
        "batch": x,
        "random": [torch.get_rng_state(), random.getstate()],
        "modes": [torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype()],
    }
    return {
        path: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for path, value in flat(everything)
    }


@st.composite
def set_ups(draw):
    model = net()
    x = torch.randn(4, 3)
    choose = draw(st.randoms(use_true_random=False))
    parameters = list(model.parameters())
    cut = draw(st.integers(1, len(parameters) - 1))
    groups = [
        {"params": parameters[:cut], "lr": draw(st.sampled_from([0.0, 0.1]))},
        {"params": parameters[cut:]},
    ]
    optimizers = [draw(st.sampled_from(OPTIMIZERS))(groups[: draw(st.integers(1, 2))])]
    if draw(st.booleans()):
        optimizers.append(OPTIM.SGD(model[5].parameters(), lr=0.1, momentum=0.9))
    schedulers = [draw(st.sampled_from(SCHEDULERS))(o) for o in optimizers if draw(st.booleans())]
    for _ in range(draw(st.integers(0, 2))):
        model.zero_grad(set_to_none=draw(st.booleans()))
        model(x).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
    for part in draw(st.lists(st.sampled_from(PARTS), max_size=3)):
        for name, parameter in model.named_parameters():
            if name == part or name.startswith(f"{part}."):
                parameter.requires_grad_(False)
    handle = None
    if draw(st.booleans()):
        handle = freeze(
            model, draw(st.sampled_from(PARTS)), draw(st.sampled_from(["requires_grad", "grad_none"]))
        )
    if draw(st.booleans()):
        model[5] = nn.Linear(4, 2)
    if draw(st.booleans()):
        model[3].requires_grad = False
    bad = draw(st.sampled_from(BAD))
    if bad is not None:
        with torch.no_grad():
            choose.choice(list(model.parameters())).fill_(bad)
    model.train(draw(st.booleans()))
    return model, optimizers, schedulers, x, handle


@given(set_ups(), st.booleans(), st.booleans())
def test_everything_is_as_it_was(set_up, runs, loss):
    model, optimizers, schedulers, x, handle = set_up
    options = {"batch": x} if runs else {}
    options |= {"loss": nn.CrossEntropyLoss()} if loss else {}
    before = photograph(model, optimizers, schedulers, x)
    found = audit(model, *optimizers, scheduler=schedulers, **options)
    after = photograph(model, optimizers, schedulers, x)
    assert before.keys() == after.keys()
    for path, value in before.items():
        same = same_bits(value, after[path]) if isinstance(value, torch.Tensor) else _same(value, after[path])
        assert same, path
    again = audit(model, *optimizers, scheduler=schedulers, **options)
    assert repr(found) == repr(again)
    assert found.rows() == again.rows()
    if handle is not None:
        handle.release()


def _same(value, other):
    return value == other or (value != value and other != other)
