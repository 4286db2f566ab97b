"""Two ranks' ledgers compared: in one process on made models, and in two real processes."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

import layerlab as ll
from layerlab import Ranks
from layerlab.training.ranks import compare_ranks, digest


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def run(net, rank, steps=3, data=0, lr=0.1, before_step=lambda step: None):
    """Train without any averaging; the record of it, as a rank's."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(data)
    with ll.watch(net, optimizer) as ledger:
        ranks = Ranks(ledger, net)
        for step in range(steps):
            optimizer.zero_grad()
            x, y = torch.randn(6, 3, generator=generator), torch.tensor([0, 1] * 3)
            cross_entropy(net(x), y).backward()
            before_step(step)
            optimizer.step()
    return replace(ranks.record, rank=rank)


def alarms(comparison):
    return {alarm.name: alarm for alarm in comparison.alarms}


def test_a_digest_tells_every_bit():
    one = torch.tensor([0.0, 1.0])
    assert digest(one) == digest(one.clone())
    other = one.clone()
    other[1] = torch.nextafter(other[1], torch.tensor(2.0))
    kinds = [one, other, torch.tensor([-0.0, 1.0]), one[None], one.double(), one.bfloat16(), one.int()]
    assert len({digest(kind) for kind in kinds}) == len(kinds)
    nan = torch.tensor(float("nan"))
    assert digest(nan) == digest(nan.clone())
    assert digest(torch.empty(0)) != digest(torch.empty(0, 2))
    every_second = torch.arange(6.0)[::2]
    assert digest(every_second) == digest(torch.tensor([0.0, 2.0, 4.0]))


def test_two_equal_runs_are_the_same():
    comparison = compare_ranks([run(model(), 0), run(model(), 1)])
    assert comparison.apart == []
    assert comparison.alarms == []
    assert "all tensors are the same, bit for bit" in repr(comparison)


def test_other_data_without_averaging():
    nets = model(), model()
    comparison = compare_ranks([run(nets[0], 0, data=1), run(nets[1], 1, data=2)])
    apart = [
        n
        for (n, p), q in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True)
        if not torch.equal(p, q)
    ]
    found = alarms(comparison)
    assert [n for n, alarm in found.items() if alarm.level == "alarm"] == apart
    assert all(alarm.step == 0 for alarm in found.values())
    assert "was not averaged" in found["0.weight"].cause
    assert "DistributedDataParallel" in found["0.weight"].cure
    statistics = found["1.running_mean"]
    assert statistics.level == "notice"
    assert "own batch" in statistics.cause


def test_one_rank_drops_a_gradient_in_one_step():
    nets = model(), model()

    def drop(step):
        if step == 1:
            nets[1][2].bias.grad = None

    comparison = compare_ranks([run(nets[0], 0, steps=2), run(nets[1], 1, steps=2, before_step=drop)])
    assert comparison.first == {"2.bias": 1}
    (alarm,) = comparison.alarms
    assert alarm.cause == (
        "on rank 0 it moved by its gradient; on rank 1 it stayed: its grad was None, so step() skipped it"
    )
    assert "all_reduce" in alarm.cure
    assert "≠ from step 1" in repr(comparison)
    assert "<script" not in comparison._repr_html_()


def test_other_learning_rates_and_other_starts():
    comparison = compare_ranks([run(model(), 0), run(model(), 1, lr=0.2)])
    assert alarms(comparison)["0.weight"].cause == "lr 0.1 on rank 0, 0.2 on rank 1"
    comparison = compare_ranks([run(model(0), 0), run(model(1), 1)])
    assert comparison.first["0.weight"] == -1
    assert "before the first step" in alarms(comparison)["0.weight"].cause


def test_weights_that_are_made_alike_in_time():
    """As DistributedDataParallel does when it wraps, which may be inside the with block."""
    nets = model(0), model(1)
    assert "0.weight" in compare_ranks([run(nets[0], 0, steps=0), run(nets[1], 1, steps=0)]).apart
    start = {n: t.clone() for n, t in nets[0].state_dict().items()}
    records = []
    for rank, net in enumerate(nets):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with ll.watch(net, optimizer) as ledger:
            ranks = Ranks(ledger, net)
            net.load_state_dict(start)
            cross_entropy(net(torch.ones(2, 3)), torch.tensor([0, 1])).backward()
            optimizer.step()
        records.append(replace(ranks.record, rank=rank))
    assert compare_ranks(records).apart == []


def test_one_rank_takes_a_step_more():
    comparison = compare_ranks([run(model(), 0, steps=2), run(model(), 1, steps=3)])
    (alarm,) = comparison.alarms
    assert alarm.code == "ranks-uneven"
    assert "2 on rank 0, 3 on rank 1" in alarm.what
    assert "·" in repr(comparison)


def test_a_record_travels():
    record = run(model(), 0)
    assert compare_ranks([record, replace(pickle.loads(pickle.dumps(record)), rank=1)]).apart == []


def test_a_hostile_name():
    net = nn.ModuleDict({"<b>\u202e": nn.Linear(2, 2)})
    records = []
    for rank in range(2):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with ll.watch(net, optimizer) as ledger:
            ranks = Ranks(ledger, net)
            net["<b>\u202e"](torch.ones(1, 2)).sum().backward()
            optimizer.step()
        records.append(replace(ranks.record, rank=rank))
    shown = compare_ranks(records)
    assert "<b>" not in shown._repr_html_()
    assert "\u202e" not in repr(shown)


def test_a_model_of_many_tensors_is_folded():
    """Rows for what parted, up to twenty; a line for what did not; one warning for all that parted alike."""
    records = []
    for rank in range(2):
        torch.manual_seed(0)
        net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(30)))
        net[:4].requires_grad_(False)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with ll.watch(net, optimizer) as ledger:
            ranks = Ranks(ledger, net)
            net(torch.full((1, 2), 1.0 + rank)).sum().backward()
            for p in net[4:].parameters():
                p.grad += 0.1 + rank  # so that all of them part, however small
            optimizer.step()
        records.append(replace(ranks.record, rank=rank))
    comparison = compare_ranks(records)
    assert len(comparison.apart) == 52
    (page,) = comparison.description.tables
    assert [row.names[0] for row in page.rows] == comparison.apart[:20]
    folded = {fold.summary: fold.names for fold in page.folds}
    assert list(folded) == ["8 tensors: the same bits", "32 tensors: parted too"]
    assert {*page_names(page)} == {name for name, _ in net.named_parameters()}
    assert len(comparison.description.alarms) == 1


def page_names(page):
    return [name for part in (*page.rows, *page.folds) for name in part.names]


def test_bad_input():
    record = run(model(), 0)
    with pytest.raises(ValueError, match="two ranks or more, not of 1"):
        compare_ranks([record])
    with pytest.raises(ValueError, match="two records are of one rank: 0, 0"):
        compare_ranks([record, record])
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    ledger = ll.watch(net, optimizer)
    with pytest.raises(RuntimeError, match="inside its with block"):
        Ranks(ledger, net)
    with ledger:
        ranks = Ranks(ledger, net)
    with pytest.raises(RuntimeError, match="init_process_group"):
        ranks.compare()


TWO = """
import json, os, sys
import torch
from torch import nn
import layerlab as ll
from layerlab.training.ranks import Ranks

dist = torch.distributed
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
torch.set_num_threads(1)
torch.manual_seed(rank)  # wrapping copies rank 0's weights
net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
net[0].requires_grad_(False)
ddp = nn.parallel.DistributedDataParallel(net)
net[0].bias.requires_grad_(True)
optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
with ll.watch(ddp, optimizer) as ledger:
    ranks = Ranks(ledger, ddp)
    for _ in range(2):
        optimizer.zero_grad()
        ddp(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
comparison = ranks.compare()
apart = []
for name, p in net.named_parameters():
    every = [torch.empty_like(p) for _ in range(2)]
    dist.all_gather(every, p.detach())
    if not torch.equal(*every):
        apart.append(name)
alarmed = [alarm.name for alarm in comparison.alarms]
print(json.dumps([apart, comparison.apart, alarmed, repr(comparison)]), flush=True)
dist.barrier()
os._exit(0)  # threads of gloo may outlive the interpreter
"""


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
def test_two_processes_get_one_answer(tmp_path):
    pipe = subprocess.PIPE
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(rank), str(tmp_path / "store")], stdout=pipe, text=True
        )
        for rank in range(2)
    ]
    try:
        said = [json.loads(process.communicate(timeout=240)[0].splitlines()[-1]) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert said[0] == said[1]
    apart, found, alarmed, _ = said[0]
    assert apart == found == alarmed == ["0.bias"]
