"""What `Unfreeze` refuses: whatever would silently not train; and a refusal changes nothing."""

import re

import pytest
import torch
from torch import nn
from unfrozen_net import LR, build, new_net

from layerlab.freezing import freeze, how_frozen
from layerlab.unfreezing import Unfreeze


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({}, "the plan is empty"),
        ({1: {}}, "epoch 1 of the plan releases nothing"),
        ({0: {"layer3": 0.1}}, "epoch 0 of the plan: give a whole number from 1 up"),
        ({-1: {"layer3": 0.1}}, "epoch -1 of the plan"),
        ({True: {"layer3": 0.1}}, "epoch True of the plan"),
        ({1.5: {"layer3": 0.1}}, "epoch 1.5 of the plan"),
        ({"1": {"layer3": 0.1}}, "epoch '1' of the plan"),
        ({1: {"layer3": 0}}, "lr=0: it would be released, and stay still"),
        ({1: {"layer3": -0.1}}, "lr=-0.1; give a number above 0"),
        ({1: {"layer3": float("nan")}}, "lr=nan"),
        ({1: {"layer3": float("inf")}}, "lr=inf"),
        ({1: {"layer3": "0.1"}}, "lr='0.1'"),
        ({1: {"layer3": True}}, "lr=True"),
        ({1: {"layer3": None}}, "lr=None"),
        ({1: {"layer3": {"momentum": 0.1}}}, "have no 'lr'"),
        (
            {1: {"layer3": {"lr": 0.1, "betas": (0.9, 0.9)}}},
            "SGD has no option 'betas'; its options are lr, mom",
        ),
        ({1: {"layer5": 0.1}}, "pattern 'layer5' matches nothing; near names: layer3"),
        ({1: {"layer3.1.running_mean": 0.1}}, "matches only buffers"),
        ({1: {"layer3": 0.1}, 4: {"layer3": 0.1}}, "layer3.0.weight stands in two entries: epoch 1"),
        ({1: {"layer3": 0.1, "*.bias": 0.1}}, "layer3.0.bias stands in two entries"),
        ({2: {"*": 0.1}}, "nothing would train until epoch 2"),
    ],
)
def test_plans_that_make_no_sense(plan, said):
    net = new_net()
    optimizer = build("SGD", net, "one group")
    with pytest.raises(ValueError, match=re.escape(said)):
        Unfreeze(net, optimizer, plan)
    assert all(p.requires_grad for p in net.parameters())
    assert not any("train" in vars(module) for module in net.modules())
    assert [group["lr"] for group in optimizer.param_groups] == [LR]


@pytest.mark.parametrize("plan", [[("layer3", 0.1)], "layer3", {1: "layer3"}, {1: ["layer3"]}])
def test_plans_of_the_wrong_type(plan):
    net = new_net()
    with pytest.raises(TypeError, match=r"dict such as \{"):
        Unfreeze(net, build("SGD", net, "one group"), plan)


def test_the_first_epochs_must_train_something():
    plan = {2: {"layer3": 0.1}}
    net = new_net()
    for name, p in net.named_parameters():
        p.requires_grad = name.startswith("layer3")
    with pytest.raises(ValueError, match="nothing would train until epoch 2"):
        Unfreeze(net, build("SGD", net, "one group"), plan)
    net = new_net()
    with pytest.raises(ValueError, match="nothing would train until epoch 2"):
        Unfreeze(net, torch.optim.SGD(net.layer3.parameters(), lr=LR), plan)
    net = new_net()
    frozen = torch.optim.SGD(net.parameters(), lr=0.0)
    with pytest.raises(ValueError, match="nothing would train until epoch 2"):
        Unfreeze(net, frozen, plan)
    warm_up = torch.optim.lr_scheduler.ReduceLROnPlateau(frozen)
    Unfreeze(net, frozen, plan, scheduler=warm_up).close()


def test_the_optimizer_must_be_one_of_this_model():
    net, plan = new_net(), {1: {"layer3": 0.1}}
    with pytest.raises(ValueError, match="holds no parameter of this model"):
        Unfreeze(net, build("SGD", new_net(), "one group"), plan)
    with pytest.raises(ValueError, match="LBFGS"):
        Unfreeze(net, torch.optim.LBFGS(net.parameters()), plan)
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer, not list"):
        Unfreeze(net, list(net.parameters()), plan)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, not list"):
        Unfreeze([], build("SGD", net, "one group"), plan)


@pytest.mark.parametrize("how", ["requires_grad", "grad_none", "lr_zero"])
def test_what_another_freeze_holds_is_refused(how):
    net = new_net()
    optimizer = build("SGD", net, "groups of their own")
    handle = freeze(net, "layer3.0", how, optimizer=optimizer)
    with pytest.raises(ValueError, match="another freeze holds layer3"):
        Unfreeze(net, optimizer, {1: {"layer3": 0.1}})
    handle.release()
    plan = Unfreeze(net, optimizer, {1: {"layer3": 0.1}})
    with pytest.raises(ValueError, match="another freeze holds layer3"):  # the cell was run twice
        Unfreeze(net, optimizer, {1: {"layer3": 0.1}})
    plan.close()
    Unfreeze(net, optimizer, {1: {"layer3": 0.1}})
    assert how_frozen(net.layer3[0].weight) == "requires_grad"


def test_distributed_data_parallel_must_have_seen_the_flags_and_expect_their_change():
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        plan = {1: {"layer3": 0.1}}
        net = new_net()
        wrapped = nn.parallel.DistributedDataParallel(net)
        with pytest.raises(ValueError, match="built without find_unused_parameters=True"):
            Unfreeze(wrapped, build("SGD", net, "one group"), plan)

        net = new_net()
        net.layer3.requires_grad_(False)
        wrapped = nn.parallel.DistributedDataParallel(net, find_unused_parameters=True)
        with pytest.raises(ValueError, match=r"layer3\.0\.weight.* does not: its copies would part"):
            Unfreeze(wrapped, build("SGD", net, "one group"), plan)

        net = new_net()
        wrapped = nn.parallel.DistributedDataParallel(net, find_unused_parameters=True)
        optimizer = build("SGD", net, "one group")
        unfreeze = Unfreeze(wrapped, optimizer, plan)
        unfreeze.step()
        before = net.layer3[0].weight.detach().clone()
        wrapped(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        assert not torch.equal(net.layer3[0].weight, before)
    finally:
        torch.distributed.destroy_process_group()
