"""The audit of a model under DistributedDataParallel, against what two processes really do."""

import json
import subprocess
import sys

import pytest
import torch.distributed as dist

RANKS = """
import json, os, sys
import torch
from torch import nn
from layerlab.auditing import audit

dist = torch.distributed
rank, store, scenarios = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
torch.set_num_threads(1)
DDP = nn.parallel.DistributedDataParallel


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.left, self.right = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x, both=True):
        x = self.left(self.body(x))
        return self.right(x) if both else x


def parted():
    found = []
    for name, p in net.named_parameters():
        every = [torch.empty_like(p) for _ in range(2)]
        dist.all_gather(every, p.detach())
        if not torch.equal(*every):
            found.append(name)
    return found


def step():
    ddp.zero_grad()
    ddp(x, both).square().mean().backward()
    optimizer.step()


saw = {}
for scenario in scenarios:
    what, cure = scenario.removesuffix(", cured"), scenario.endswith(", cured")
    net, both, x = Net(), what != "unused", torch.full((2, 2), 1.0 + rank)
    net.left.requires_grad_(what not in ("released after", "frozen before"))
    ddp = DDP(net, find_unused_parameters=what.endswith("looked for"))
    if what.startswith("frozen after") or what == "hidden":
        net.left.requires_grad_(False)
    if what == "released after":
        net.left.requires_grad_(True)
    if what == "hidden":
        ddp.reducer = None
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    options = {"batch": (x, both)} if what == "unused" else {}
    found = audit(ddp, optimizer, **options)
    told = [(f.code, f.level, f.names) for f in found if f.code != "late-freeze"]
    if cure:
        exec(found[0].cure)
        told = [f.code for f in audit(ddp, optimizer, **options) if f.level != "note"]
    error, apart = "", []
    if what != "hidden":
        step()
        apart = parted()
        try:
            step()
        except RuntimeError as raised:
            error = str(raised)
    saw[scenario] = {"told": told, "apart": apart, "error": error}
dist.barrier()
if rank == 0:
    print(json.dumps(saw), flush=True)
os._exit(0)  # threads of gloo may outlive the interpreter
"""

SCENARIOS = [
    "untouched",
    "frozen before",
    "frozen after",
    "frozen after, cured",
    "frozen after, looked for",
    "released after",
    "released after, cured",
    "unused",
    "unused, cured",
    "hidden",
]
LEFT = ["left.weight", "left.bias"]
WELL = {"told": [], "apart": [], "error": ""}


@pytest.fixture(scope="module")
def saw(tmp_path_factory):
    """What the first of two processes saw in every scenario."""
    arguments = [str(tmp_path_factory.mktemp("ddp") / "store"), json.dumps(SCENARIOS)]
    pipe = subprocess.PIPE
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, str(rank), *arguments], stdout=pipe, stderr=pipe, text=True
        )
        for rank in range(2)
    ]
    try:
        (out, errors), _ = [process.communicate(timeout=240) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], errors
    return json.loads(out.splitlines()[-1])


pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")


def test_frozen_after_wrapping(saw):
    seen = saw["frozen after"]
    assert seen["told"] == [["ddp-frozen-after", "error", LEFT]]
    assert seen["apart"]
    assert "Expected to have finished reduction" in seen["error"]
    assert saw["frozen after, cured"] == WELL


def test_released_after_wrapping(saw):
    seen = saw["released after"]
    assert seen["told"] == [["ddp-released-after", "error", LEFT]]
    assert set(LEFT) <= set(seen["apart"])
    assert seen["error"] == ""
    assert saw["released after, cured"] == WELL


def test_what_the_output_does_not_depend_on(saw):
    seen = saw["unused"]
    assert seen["told"] == [["unused-in-forward", "error", ["right.weight", "right.bias"]]]
    assert "Expected to have finished reduction" in seen["error"]
    assert saw["unused, cured"] == WELL


@pytest.mark.parametrize("scenario", ["untouched", "frozen before", "frozen after, looked for"])
def test_nothing_wrong(saw, scenario):
    assert saw[scenario] == WELL


def test_a_torch_that_does_not_show_what_it_averages(saw):
    assert saw["hidden"]["told"] == [["ddp-unseen", "note", LEFT]]
