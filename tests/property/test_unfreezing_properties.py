"""Random plans, optimizers, layouts of their groups and points to stop at, beside a loop by hand."""

import copy
from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as lrs
from unfrozen_net import (
    EPOCHS,
    LAYOUTS,
    OPTIMIZERS,
    PARTS,
    build,
    by_hand,
    new_net,
    other_bits,
    stored,
    train_epoch,
)

from layerlab.unfreezing import Unfreeze

SCHEDULERS = {
    "none": None,
    "StepLR": partial(lrs.StepLR, step_size=2, gamma=0.5),
    "ExponentialLR": partial(lrs.ExponentialLR, gamma=0.8),
    "MultiStepLR": partial(lrs.MultiStepLR, milestones=[1, 4], gamma=0.1),
    "CosineAnnealingLR": partial(lrs.CosineAnnealingLR, T_max=EPOCHS + 1, eta_min=0.001),
    "PolynomialLR": partial(lrs.PolynomialLR, total_iters=EPOCHS + 1),
}
ORDERS = (("plan", "optimizer", "scheduler", "net"), ("net", "scheduler", "plan", "optimizer"))


@st.composite
def plans(draw):
    """Some of the parts, each released at some epoch (perhaps after the end) with some lr."""
    parts = draw(st.lists(st.sampled_from(PARTS), min_size=1, unique=True))
    plan = {}
    for part in parts:
        epoch = draw(st.integers(1, EPOCHS))
        plan.setdefault(epoch, {})[part] = draw(st.sampled_from([0.5, 0.05, 0.001]))
    return dict(sorted(plan.items()))


@given(
    plan=plans(),
    kind=st.sampled_from(sorted(OPTIMIZERS)),
    layout=st.sampled_from(LAYOUTS),
    scheduler=st.sampled_from(sorted(SCHEDULERS)),
    stop=st.none() | st.integers(0, EPOCHS),
    order=st.sampled_from(ORDERS),
)
def test_every_plan_comes_to_the_bits_of_a_loop_by_hand(plan, kind, layout, scheduler, stop, order):
    frozen = [part for released in plan.values() for part in released]

    def begin():
        net = new_net()
        optimizer = build(kind, net, layout, frozen)
        made = {"net": net, "optimizer": optimizer}
        if SCHEDULERS[scheduler]:
            made["scheduler"] = SCHEDULERS[scheduler](optimizer)
        made["plan"] = Unfreeze(net, optimizer, plan, scheduler=made.get("scheduler"))
        return made

    made = begin()
    for epoch in range(EPOCHS):
        if epoch == stop:
            states = {name: copy.deepcopy(one.state_dict()) for name, one in made.items()}
            made = begin()
            for name in order:
                if name in made:
                    made[name].load_state_dict(states[name])
        made["net"].train()
        train_epoch(made["net"], made["optimizer"], epoch)
        if "scheduler" in made:
            made["scheduler"].step()
        made["plan"].step()

    net, optimizer = by_hand(kind, plan, SCHEDULERS[scheduler])
    assert other_bits(made["net"], net) == []
    # What is released after the last epoch is in the one optimizer only; neither stores anything for it.
    assert stored(made["net"], made["optimizer"]) == stored(net, optimizer)
    trained = {id(p) for group in made["optimizer"].param_groups for p in group["params"]}
    assert trained >= {id(p) for p in made["net"].fc.parameters()}
    last = [part for at, released in plan.items() if at > EPOCHS - 1 for part in released]
    assert [p.requires_grad for part in last for p in getattr(made["net"], part).parameters()] == [
        True for part in last for _ in getattr(made["net"], part).parameters()
    ]
