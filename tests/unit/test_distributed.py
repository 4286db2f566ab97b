"""Freezing under DistributedDataParallel: each verdict against the parameters that two processes had."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.functional import cross_entropy
from torch_versions import SHARDS_ON_CPU

from layerlab.experiments.distributed.jobs import job
from layerlab.experiments.distributed.launch import run_on_two_ranks
from layerlab.experiments.distributed.outcome import (
    APART,
    ERROR,
    HANGS,
    MOVED,
    WORKS,
    first_sentence,
    run_all,
    run_variants,
)
from layerlab.experiments.distributed.problems import batches, network, optimizer_of
from layerlab.experiments.distributed.variants import SHARDED, VARIANTS, Variant
from layerlab.ledger import watch
from layerlab.lessons_support.lesson_09 import outcome_table

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")

EXPECTED = {
    "alternate": ERROR,
    "find_unused": WORKS,
    "grad_none": WORKS,
    "flags": WORKS,
    "zeros": MOVED,
    "zeros_grad_none": WORKS,
    "own_tasks": WORKS,
    "own_tasks_grad_none": APART,
    "all_ranks_grad_none": WORKS,
    "one_rank_grad_none": APART,
    "lr_zero": WORKS,
    "frozen_after": ERROR,
    "frozen_last": APART,
    "released_after": APART,
    "wrap_anew": WORKS,
    "one_rank_frozen": ERROR,
    "one_rank_skips": HANGS,
    "one_rank_times_zero": WORKS,
    "sharded": WORKS if SHARDS_ON_CPU else ERROR,
}
"""What it comes to with PyTorch 2.15, as measured by hand before this was written."""


@pytest.fixture(scope="module")
def outcomes():
    return run_all()


def bits(tensor):
    return tensor.numpy().tobytes()


def differ(outcome, at):
    """Names of the parameters whose bytes differ between the ranks at one moment."""
    one, other = (run.moments[at] for run in outcome.runs)
    return {name for name in one if bits(one[name]) != bits(other[name])}


def test_every_verdict(outcomes):
    assert {name: outcome.verdict for name, outcome in outcomes.items()} == EXPECTED


@pytest.mark.parametrize("name", EXPECTED)
def test_apart_is_what_the_parameters_say(outcomes, name):
    outcome = outcomes[name]
    assert (outcome.apart > 0) == bool(differ(outcome, -1))
    if outcome.verdict in (WORKS, MOVED):
        assert not any(differ(outcome, at) for at in range(1, 5))


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "sharded"])
def test_the_ledgers_say_the_same_as_the_parameters(outcomes, name):
    outcome = outcomes[name]
    counts = [len(run.moments) for run in outcome.runs]
    first = {}
    for at in range(1, min(counts)):
        for tensor in differ(outcome, at):
            first.setdefault(tensor, at - 1)
    assert outcome.comparison.first == first
    named = {alarm.name for alarm in outcome.comparison.alarms if alarm.code == "ranks-apart"}
    assert named == set(first)
    for run in outcome.runs:  # and each rank's own ledger saw what moved
        for before, after, step in zip(run.moments, run.moments[1:], run.record.steps, strict=False):
            assert step.moved == [n for n in after if bits(before[n]) != bits(after[n])]


@pytest.mark.parametrize("name", [n for n, v in {**VARIANTS, "sharded": SHARDED}.items() if v.still])
def test_moved_is_what_the_parameters_say(outcomes, name):
    outcome, found = outcomes[name], set()
    for run in outcome.runs:
        for before, after, still in zip(run.moments, run.moments[1:], outcome.variant.still, strict=False):
            found |= {n for n in still if bits(before[n]) != bits(after[n])}
    assert set(outcome.moved) == found
    if outcome.verdict == WORKS:
        for run in outcome.runs:  # and it is not that nothing trains
            moved = {n for n in run.moments[0] if bits(run.moments[0][n]) != bits(run.moments[-1][n])}
            assert moved >= set(run.moments[0]) - {n for still in outcome.variant.still for n in still}


@pytest.mark.parametrize("name", ["find_unused", "grad_none", "flags", "zeros_grad_none"])
def test_the_ways_that_work_train_as_one_process_with_all_the_data(outcomes, name):
    net = network("two tasks")
    optimizer = optimizer_of(net)
    for one, other in zip(batches("two tasks", 0), batches("two tasks", 1), strict=True):
        optimizer.zero_grad()
        inputs, targets = torch.cat([one[0][0], other[0][0]]), torch.cat([one[1], other[1]])
        cross_entropy(net(inputs, one[0][1]), targets).backward()
        optimizer.step()
    reached = outcomes[name].runs[1].moments[-1]
    for name, p in net.named_parameters():
        torch.testing.assert_close(reached[name], p.detach(), rtol=1e-3, atol=1e-4)


def test_released_after_wrapping_trains_on_its_own_data_alone(outcomes):
    """Its gradient is that of the rank's own batch: the other layer's is the mean of both."""
    net = network("mlp")
    for rank, run in enumerate(outcomes["released_after"].runs):
        net.load_state_dict(run.moments[2])
        inputs, targets = batches("mlp", rank)[2]
        net.zero_grad()
        cross_entropy(net(*inputs), targets).backward()
        own = run.record.steps[2]
        assert own["body.weight"].grad_max == pytest.approx(float(net.body.weight.grad.abs().max()), rel=1e-4)
        assert own["head.weight"].grad_max != pytest.approx(float(net.head.weight.grad.abs().max()), rel=1e-4)


def test_a_loss_times_zero_leaves_half_of_the_other_ranks_gradient(outcomes):
    net, run = network("mlp"), outcomes["one_rank_times_zero"].runs[0]
    net.load_state_dict(run.moments[3])
    inputs, targets = batches("mlp", 1)[3]
    cross_entropy(net(*inputs), targets).backward()
    for name, p in net.named_parameters():
        assert run.record.steps[3][name].grad_max == pytest.approx(float(p.grad.abs().max()) / 2, rel=1e-4)


def test_the_cure_goes_by_whether_something_went_unused(outcomes):
    def cures(name):
        return {alarm.cure for alarm in outcomes[name].comparison.alarms}

    (looked_for,), (anew,) = cures("alternate"), cures("released_after")
    assert looked_for.startswith("ddp = DistributedDataParallel(model, find_unused_parameters=True)")
    assert anew.startswith("ddp = DistributedDataParallel(model)  # wrap anew")
    (together,) = cures("own_tasks_grad_none")
    exec(together.splitlines()[0], named := {"torch": torch, "model": network("two tasks")})
    assert named["frozen"].tolist() == [0, 0, 0]


def test_errors_are_told(outcomes):
    assert "Expected to have finished reduction" in first_sentence(outcomes["alternate"].failure)
    assert "train_step(ddp" in outcomes["alternate"].failure.where
    assert len(outcomes["frozen_after"].runs[0].moments) == 4  # at the forward pass after the next
    assert "same model across all ranks" in first_sentence(outcomes["one_rank_frozen"].failure)
    assert all(
        outcomes[name].failure is None for name, verdict in EXPECTED.items() if verdict in (WORKS, APART)
    )


def raises_on_one_rank(net, optimizer, batches, rank):
    print("hello from", rank)
    ddp = DDP(net)  # noqa: F821 - known where it runs
    train_step(ddp, optimizer, batches[0])  # noqa: F821
    if rank == 1:
        raise KeyError("<b>lost")
    train_step(ddp, optimizer, batches[1])  # noqa: F821


def leaves(net, optimizer, batches, rank):
    raise SystemExit(3)


def test_an_error_on_one_rank_is_an_error_although_the_other_waits():
    one, other = run_variants([Variant(raises_on_one_rank, ""), Variant(leaves, "")], limit=2)
    assert one.verdict == ERROR
    assert first_sentence(one.failure) == "KeyError: '<b>lost'"
    assert one.failure.where == 'line 6: raise KeyError("<b>lost")'
    assert [run.hung for run in one.runs] == [True, False]
    assert [run.printed for run in one.runs] == ["hello from 0\n", "hello from 1\n"]
    assert other.verdict == ERROR
    assert other.failure.kind == "SystemExit"


def frozen_by_flag_and_moved_by_zeros(net, optimizer, batches, rank):
    ddp = DDP(net, find_unused_parameters=True)  # noqa: F821
    for step, batch in enumerate(batches):
        net.body.requires_grad_(step < 2)
        train_step(ddp, optimizer, batch, set_to_none=False)  # noqa: F821


def does_nothing(net, optimizer, batches, rank):
    pass


def test_what_is_frozen_and_moves_is_told_without_being_asked_for():
    moved, idle = run_variants([Variant(frozen_by_flag_and_moved_by_zeros, ""), Variant(does_nothing, "")])
    assert (moved.verdict, moved.moved) == (MOVED, ["body.weight", "body.bias"])
    assert moved.apart == 0
    assert (idle.verdict, idle.steps) == (WORKS, 0)
    assert repr(moved) == "Outcome(frozen_by_flag_and_moved_by_zeros: frozen moved)"
    assert "✓ works, but no step was taken" in repr(outcome_table({"idle": idle}, "", {}))


def dies(net, optimizer, batches, rank):
    import os

    if rank == 1:
        os._exit(3)
    DDP(net)  # noqa: F821


def test_a_process_that_dies_is_an_error_and_what_comes_after_did_not_run():
    ways = [Variant(way, "") for way in (does_nothing, dies, does_nothing)]
    before, died, after = run_variants(ways)
    assert [one.verdict for one in (before, died, after)] == [WORKS, ERROR, ERROR]
    assert "ProcessEnded: a rank was gone before its time" in first_sentence(died.failure)
    assert "not run" in first_sentence(after.failure)
    assert died.apart == after.apart == 0
    with pytest.raises(ValueError, match="does_nothing: 0 of 2 ranks kept a ledger; nothing to compare"):
        _ = after.comparison


def all_die(net, optimizer, batches, rank):
    import os

    os._exit(3)


def test_ranks_that_all_die_at_once_are_an_error_too():
    (died,) = run_variants([Variant(all_die, "")])
    assert died.verdict == ERROR
    assert "a rank was gone before its time" in first_sentence(died.failure)
    assert died.failure.text.endswith("with exit status 3")


def released_before_the_first_step(net, optimizer, batches, rank):
    net.body.requires_grad_(False)
    ddp = DDP(net)  # noqa: F821
    net.body.requires_grad_(True)
    for batch in batches:
        train_step(ddp, optimizer, batch)  # noqa: F821


def test_the_cure_is_to_wrap_anew_also_where_flags_changed_before_the_first_step():
    (outcome,) = run_variants([Variant(released_before_the_first_step, "")])
    assert outcome.verdict == APART
    cures = {alarm.cure.splitlines()[0] for alarm in outcome.comparison.alarms}
    assert cures == {"ddp = DistributedDataParallel(model)  # wrap anew, after every change of requires_grad"}


def test_what_is_no_way_is_refused_before_anything_runs():
    with pytest.raises(TypeError, match=r"a way is Variant\(function, .*\), not a function"):
        run_variants([does_nothing])
    with pytest.raises(
        ValueError, match="'article' is no network of this lesson: choose 'two tasks' or 'mlp'"
    ):
        Variant(does_nothing, "", "article")


def test_what_is_no_function_with_a_source():
    with pytest.raises(TypeError, match="made with def"):
        job(lambda: None, "mlp")
    with pytest.raises(TypeError, match="made with def"):
        job(print, "mlp")
    names = {}
    exec("def typed(net): pass", names)
    with pytest.raises(ValueError, match="source of typed"):
        job(names["typed"], "mlp")


def test_without_gloo(monkeypatch):
    monkeypatch.setattr(dist, "is_gloo_available", lambda: False)
    with pytest.raises(RuntimeError, match="gloo backend"):
        run_on_two_ranks([])


SCRIPT = """
import signal
from layerlab.experiments.distributed.jobs import Job
from layerlab.experiments.distributed.launch import run_on_two_ranks
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts with & ignores it
source = '''
def endless(net, optimizer, batches, rank):
    import os, pathlib, time
    pathlib.Path({folder!r}, f"{{os.getpid()}}-{{os.getppid()}}").touch()
    while True:
        time.sleep(0.1)
'''
print(run_on_two_ranks([Job("endless", source, "mlp")], patience={patience}))
"""


def start(folder, patience):
    code = SCRIPT.format(folder=str(folder), patience=patience)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(list(folder.iterdir())) == 2 or process.poll() is not None)
    return process


def wait_until(holds, seconds=120):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{process}/stat") as stat:  # dead, and nobody has asked after it yet
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def started(folder):
    return {int(number) for file in folder.iterdir() for number in file.name.split("-")}


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="asks Linux which processes there are")
@pytest.mark.parametrize("how", ["interrupted", "killed", "too slow"])
def test_no_process_is_left(tmp_path, how):
    process = start(tmp_path, patience=15 if how == "too slow" else 600)
    try:
        processes = started(tmp_path)
        assert len(processes) == 3 or how == "too slow"  # torchrun and two ranks
        if how != "too slow":
            assert all(map(alive, processes))
            process.send_signal(signal.SIGINT if how == "interrupted" else signal.SIGKILL)
        out, error = process.communicate(timeout=120)
        wait_until(lambda: not any(map(alive, processes)), 30)
        if how == "interrupted":
            assert "KeyboardInterrupt" in error
        elif how == "too slow":
            assert out.strip() == json.dumps([[None, None]]).replace("null", "None")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not SHARDS_ON_CPU, reason="fully_shard needs torch 2.8 on CPU")
def test_the_ledger_refuses_parameters_of_which_a_rank_holds_only_a_part(tmp_path):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        from torch.distributed.fsdp import fully_shard  # takes a second to import

        net = torch.nn.Linear(3, 2)
        fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with pytest.raises(ValueError, match=r"weight is sharded \(a DTensor.*without fully_shard"):
            watch(net, optimizer)
        net(torch.ones(1, 3)).sum().backward()
        optimizer.step()  # no hook is left
    finally:
        dist.destroy_process_group()
