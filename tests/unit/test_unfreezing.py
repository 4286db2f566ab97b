"""`Unfreeze` beside gradual unfreezing by hand in plain PyTorch: the same bits."""

import copy
import io
import re

import pytest
import torch
from torch import nn
from unfrozen_net import (
    EPOCHS,
    LAYOUTS,
    LR,
    OPTIMIZERS,
    PARTS,
    build,
    by_hand,
    new_net,
    other_bits,
    stored,
    train_epoch,
)

from layerlab.freezing import freeze, how_frozen
from layerlab.unfreezing import Unfreeze

PLAN = {2: {"layer3": 0.05}, 4: {"layer1": 0.02, "layer2": 0.01}}


def run(net, optimizer, plan, epochs=range(EPOCHS)):
    for epoch in epochs:
        net.train()
        train_epoch(net, optimizer, epoch)
        plan.step()


def lrs(net, optimizer):
    """The lr of each parameter, by name."""
    of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: of.get(id(p)) for name, p in net.named_parameters()}


def everything(net, optimizer):
    """All that a plan may touch, by identity and by value."""
    return (
        [(id(p), p.requires_grad, id(p.grad)) for p in net.parameters()],
        [(m.training, "train" in vars(m)) for m in net.modules()],
        [
            {k: [id(p) for p in v] if k == "params" else v for k, v in g.items()}
            for g in optimizer.param_groups
        ],
        stored(net, optimizer),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_it_comes_to_the_bits_of_a_loop_by_hand(kind, layout):
    net = new_net()
    optimizer = build(kind, net, layout)
    run(net, optimizer, Unfreeze(net, optimizer, PLAN))
    hand, hand_optimizer = by_hand(kind, PLAN)
    assert other_bits(net, hand) == []
    assert stored(net, optimizer) == stored(hand, hand_optimizer)
    assert lrs(net, optimizer) == lrs(hand, hand_optimizer)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_parameter_is_in_one_group_at_the_end(layout):
    net = new_net()
    optimizer = build("SGD", net, layout)
    run(net, optimizer, Unfreeze(net, optimizer, PLAN))
    members = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in net.parameters())
    if layout == "named":
        names = [name for group in optimizer.param_groups for name in group["param_names"]]
        own = {id(p): name for name, p in net.named_parameters()}
        assert names == [own[key] for key in members]


def test_what_is_frozen_stays_whole_until_its_epoch():
    net = new_net()
    optimizer = build("AdamW", net, "one group")
    plan = Unfreeze(net, optimizer, PLAN)
    start = copy.deepcopy(net.state_dict())
    for epoch in range(EPOCHS):
        still = {part for at, released in PLAN.items() if at > epoch for part in released}
        before = copy.deepcopy(net.state_dict())
        run(net, optimizer, plan, [epoch])
        for name, tensor in net.state_dict().items():
            part = name.split(".")[0]
            assert torch.equal(tensor, (start if part in still else before)[name]) == (part in still), name
    assert plan.epoch == EPOCHS
    assert plan.frozen == ()


def test_options_of_the_group_it_came_from_are_kept_and_those_of_the_plan_set():
    net = new_net()
    body = [p for name, p in net.named_parameters() if not name.startswith("fc")]
    groups = [{"params": body, "weight_decay": 0.3, "momentum": 0.5}, {"params": net.fc.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=LR, momentum=0.9)
    plan = Unfreeze(net, optimizer, {1: {"layer3": {"lr": 0.05, "momentum": 0.0}}})
    run(net, optimizer, plan, [0])
    group = optimizer.param_groups[-1]
    assert [id(p) for p in group["params"]] == [id(p) for p in net.layer3.parameters()]
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.05, 0.3, 0.0)
    assert optimizer.param_groups[0]["momentum"] == 0.5


def test_an_lr_in_a_tensor_stays_one_and_is_shared_with_nobody():
    net = new_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=torch.tensor(LR))
    run(net, optimizer, Unfreeze(net, optimizer, {1: {"layer3": 0.05}}), [0])
    first, released = (group["lr"] for group in optimizer.param_groups)
    assert isinstance(released, torch.Tensor)
    assert float(released) == pytest.approx(0.05)
    assert float(first) == pytest.approx(LR)


def test_old_momentum_and_gradient_are_gone_at_the_release():
    net = new_net()
    optimizer = build("SGD", net, "one group")
    train_epoch(net, optimizer, 0)
    assert all(p in optimizer.state for p in net.layer3.parameters())
    plan = Unfreeze(net, optimizer, {1: {"layer3": 0.05}})
    plan.step()  # without a step of the optimizer: a plain release would bring the gradient back
    for p in net.layer3.parameters():
        assert p.grad is None
        assert p not in optimizer.state
    assert all(p in optimizer.state for p in net.layer1.parameters())


def test_flags_that_were_false_before_the_plan_become_true():
    net = new_net()
    net.requires_grad_(False)
    net.fc.requires_grad_(True)
    optimizer = torch.optim.Adam(filter(lambda p: p.requires_grad, net.parameters()), lr=LR)
    plan = Unfreeze(net, optimizer, {1: {"layer3": 0.05}})
    assert not any(p.requires_grad for p in net.layer3.parameters())
    plan.step()
    assert all(p.requires_grad for p in net.layer3.parameters())
    assert not any(p.requires_grad for p in net.layer1.parameters())  # no entry names it
    before = copy.deepcopy(net.layer3.state_dict())
    train_epoch(net, optimizer, 0)
    assert not torch.equal(net.layer3[0].weight, before["0.weight"])


def test_batchnorm_of_what_is_frozen_stays_in_eval_mode():
    net = new_net()
    optimizer = build("SGD", net, "only what trains")
    plan = Unfreeze(net, optimizer, PLAN)
    net.train()
    assert [getattr(net, part)[1].training for part in PARTS] == [False, False, False]
    plan.step()
    plan.step()
    assert [getattr(net, part)[1].training for part in PARTS] == [False, False, True]
    net.eval()
    net.train()
    assert [getattr(net, part)[1].training for part in PARTS] == [False, False, True]


def test_a_tied_parameter_is_one():
    net = nn.ModuleDict({"body": nn.Linear(2, 2), "also": nn.Linear(2, 2), "fc": nn.Linear(2, 2)})
    net["also"].weight = net["body"].weight
    optimizer = torch.optim.SGD(net["fc"].parameters(), lr=LR)
    plan = Unfreeze(net, optimizer, {1: {"body": 0.05}})
    plan.step()
    assert [id(p) for p in optimizer.param_groups[-1]["params"]] == [id(p) for p in net["body"].parameters()]
    with pytest.raises(ValueError, match=r"body\.weight stands in two entries: epoch 2, 'body'"):
        Unfreeze(net, optimizer, {2: {"body": 0.1}, 3: {"also": 0.1}})


def test_patterns_of_every_kind():
    net = new_net()
    optimizer = build("SGD", net, "only what trains")
    plan = Unfreeze(
        net,
        optimizer,
        {1: {("layer3", "layer2"): 0.05}, 2: {re.compile(r"layer1\.0\..*"): 0.02}, 3: {"layer1.1*": 0.01}},
    )
    assert [entry.text for entry in plan.entries] == ["layer3, layer2", r"layer1\.0\..*", "layer1.1*"]
    plan.step()
    assert plan.frozen == ("layer1.0.weight", "layer1.0.bias", "layer1.1.weight", "layer1.1.bias")
    plan.step()
    assert plan.frozen == ("layer1.1.weight", "layer1.1.bias")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stop", range(EPOCHS))
def test_stopped_saved_and_gone_on_with_it_comes_to_the_same_bits(layout, stop):
    net = new_net()
    optimizer = build("AdamW", net, layout)
    plan = Unfreeze(net, optimizer, PLAN)
    run(net, optimizer, plan, range(stop))
    file = io.BytesIO()
    torch.save([plan.state_dict(), optimizer.state_dict(), net.state_dict()], file)
    file.seek(0)
    plan_state, optimizer_state, net_state = torch.load(file, weights_only=True)

    net = new_net()
    optimizer = build("AdamW", net, layout)
    plan = Unfreeze(net, optimizer, PLAN)
    plan.load_state_dict(plan_state)
    optimizer.load_state_dict(optimizer_state)
    net.load_state_dict(net_state)
    run(net, optimizer, plan, range(stop, EPOCHS))
    hand, hand_optimizer = by_hand("AdamW", PLAN)
    assert other_bits(net, hand) == []
    assert stored(net, optimizer) == stored(hand, hand_optimizer)


def test_where_all_groups_were_there_the_optimizer_may_be_loaded_first():
    net = new_net()
    optimizer = build("SGD", net, "groups of their own")
    plan = Unfreeze(net, optimizer, PLAN)
    run(net, optimizer, plan, range(3))
    states = copy.deepcopy((net.state_dict(), optimizer.state_dict(), plan.state_dict()))

    net = new_net()
    optimizer = build("SGD", net, "groups of their own")
    plan = Unfreeze(net, optimizer, PLAN)
    for one, state in zip((net, optimizer, plan), states, strict=True):
        one.load_state_dict(state)
    run(net, optimizer, plan, range(3, EPOCHS))
    assert other_bits(net, by_hand("SGD", PLAN)[0]) == []


def test_a_state_is_of_its_time():
    net = new_net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=torch.tensor(LR))
    plan = Unfreeze(net, optimizer, {1: {"layer3": 0.05}})
    plan.step()
    state = plan.state_dict()
    optimizer.param_groups[-1]["lr"].fill_(7.0)
    assert float(state["groups"][0][0]["lr"]) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: state.pop("groups"), "no 'groups'"),
        (lambda state: state["entries"][0].update(epoch=1), "of another plan"),
        (lambda state: state["entries"][0]["options"].update(lr=0.3), "of another plan"),
        (lambda state: state.update(names=[[["layer3.0.weight"]]]), "optimizer with other groups"),
    ],
)
def test_a_state_of_something_else_is_refused_and_changes_nothing(spoil, said):
    net = new_net()
    optimizer = build("SGD", net, "one group")
    plan = Unfreeze(net, optimizer, PLAN)
    run(net, optimizer, plan, range(2))
    state = copy.deepcopy(plan.state_dict())
    spoil(state)
    fresh = new_net()
    fresh_optimizer = build("SGD", fresh, "one group")
    fresh_plan = Unfreeze(fresh, fresh_optimizer, PLAN)
    before = everything(fresh, fresh_optimizer)
    with pytest.raises(ValueError, match=said):
        fresh_plan.load_state_dict(state)
    assert everything(fresh, fresh_optimizer) == before
    assert fresh_plan.epoch == 0


def test_it_does_not_go_back():
    net = new_net()
    optimizer = build("SGD", net, "one group")
    plan = Unfreeze(net, optimizer, PLAN)
    state = plan.state_dict()
    plan.step()
    with pytest.raises(ValueError, match="of epoch 0, and this plan is at 1"):
        plan.load_state_dict(state)


def test_closed_it_leaves_what_it_found():
    net = new_net()
    optimizer = build("SGD", net, "one group")
    train_epoch(net, optimizer, 0)
    before = everything(net, optimizer)
    plan = Unfreeze(net, optimizer, PLAN)
    assert how_frozen(net.layer1[0].weight) == "requires_grad"
    plan.close()
    plan.close()
    assert everything(net, optimizer) == before
    assert how_frozen(net.layer1[0].weight) is None
    with pytest.raises(RuntimeError, match="closed"):
        plan.step()
    with pytest.raises(RuntimeError, match="closed"):
        plan.load_state_dict({})


def test_when_all_is_released_nobody_holds_anything():
    net = new_net()
    optimizer = build("SGD", net, "one group")
    run(net, optimizer, Unfreeze(net, optimizer, PLAN))
    assert [how_frozen(p) for p in net.parameters()] == [None] * len(list(net.parameters()))
    assert not any("train" in vars(module) for module in net.modules())


def test_it_shows_itself_as_a_table():
    net = new_net()
    optimizer = build("SGD", net, "only what trains")
    plan = Unfreeze(net, optimizer, PLAN)
    plan.step()
    plan.step()
    lines = [line.split("  ") for line in repr(plan).splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells == [
        ["gradual unfreezing, at epoch 2: 6 tensors still frozen"],
        ["from epoch", "trains", "tensors", "which", "lr at its release", "now"],
        ["2", "layer3", "4", "layer3.0.weight, layer3.0.bias … and 2 more", "0.05", "released"],
        ["4", "layer1", "4", "layer1.0.weight, layer1.0.bias … and 2 more", "0.02", "frozen"],
        ["4", "layer2", "2", "layer2.0.weight, layer2.0.bias", "0.01", "frozen"],
    ]
    assert plan._repr_html_().count("<tr>") == 4
    plan.step()
    plan.step()
    assert repr(plan).startswith("gradual unfreezing, at epoch 4: all released")


def test_hostile_names_are_escaped():
    net = nn.Sequential()
    net.add_module("<b>x</b>", nn.Linear(2, 2))
    net.add_module("fc", nn.Linear(2, 2))
    plan = Unfreeze(net, torch.optim.SGD(net.fc.parameters(), lr=LR), {1: {"<b>x</b>": 0.1}})
    assert "<b>" not in plan._repr_html_()
    assert "&lt;b&gt;x" in plan._repr_html_()


def test_a_part_that_was_frozen_by_someone_else_meanwhile_is_not_released():
    net = new_net()
    optimizer = build("SGD", net, "one group")
    plan = Unfreeze(net, optimizer, {1: {"layer3": 0.05}})
    handle = freeze(net, "layer3.0")
    before = everything(net, optimizer)
    with pytest.raises(ValueError, match=r"another freeze holds layer3\.0\.weight, layer3\.0\.bias"):
        plan.step()
    assert everything(net, optimizer) == before
    handle.release()
    plan.step()
    assert plan.frozen == ()


def test_a_layer_that_was_replaced_meanwhile_is_noticed():
    net = new_net()
    optimizer = build("SGD", net, "one group")
    plan = Unfreeze(net, optimizer, {1: {"layer3": 0.05}})
    net.layer3[0] = nn.Linear(4, 4)
    with pytest.raises(RuntimeError, match=r"layer3\.0\.weight, layer3\.0\.bias: replaced in the model"):
        plan.step()
    assert plan.epoch == 0
