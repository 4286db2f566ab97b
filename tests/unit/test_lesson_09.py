"""Lesson 09's tables, and its check: it takes right solutions, and tells each typical mistake."""

import pytest
import torch.distributed as dist

from layerlab.experiments.distributed.outcome import APART, ERROR, HANGS, WORKS, run_variants
from layerlab.experiments.distributed.variants import VARIANTS, Variant
from layerlab.lessons_support import lesson_09
from layerlab.lessons_support.lesson_09 import (
    check_both_ranks,
    errors_table,
    exercise,
    judge,
    ledger_of,
    outcome_table,
    run_ways,
    steps_of,
    ways,
)
from layerlab.lessons_support.shown_code import code_of

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")

# These run in other processes, where DDP, dist, torch, train_step, other_task and cross_entropy are known.
# ruff: noqa: F821


def solution(net, optimizer, batches, rank):
    ddp = DDP(net, find_unused_parameters=True)
    for inputs, targets in batches:
        optimizer.zero_grad()
        cross_entropy(ddp(*inputs), targets).backward()
        optimizer.step()


def zeros_and_dropped_on_all(net, optimizer, batches, rank):
    ddp = DDP(net, find_unused_parameters=True)
    for batch in batches:
        train_step(ddp, optimizer, batch, set_to_none=False, drop=[other_task(net, batch)])


def averaged_by_hand(net, optimizer, batches, rank):
    for batch in batches:
        optimizer.zero_grad()
        cross_entropy(net(*batch[0]), batch[1]).backward()
        for p in net.parameters():
            if p is not other_task(net, batch):
                dist.all_reduce(p.grad)
                p.grad /= dist.get_world_size()
        optimizer.step()


def as_given(net, optimizer, batches, rank):
    ddp = DDP(net)
    for batch in batches:
        train_step(ddp, optimizer, batch, set_to_none=False)


def zeros(net, optimizer, batches, rank):
    ddp = DDP(net, find_unused_parameters=True)
    for batch in batches:
        train_step(ddp, optimizer, batch, set_to_none=False)


def dropped_on_rank_0(net, optimizer, batches, rank):
    ddp = DDP(net, find_unused_parameters=True)
    for batch in batches:
        drop = [other_task(net, batch)] if rank == 0 else []
        train_step(ddp, optimizer, batch, set_to_none=False, drop=drop)


def not_wrapped(net, optimizer, batches, rank):
    for batch in batches:
        train_step(net, optimizer, batch)


def too_few(net, optimizer, batches, rank):
    ddp = DDP(net, find_unused_parameters=True)
    for batch in batches[:2]:
        train_step(ddp, optimizer, batch)


def one_rank_stops(net, optimizer, batches, rank):
    ddp = DDP(net, find_unused_parameters=True)
    for batch in batches[: 4 - rank]:
        train_step(ddp, optimizer, batch)


def everything_frozen(net, optimizer, batches, rank):
    ddp = DDP(net, find_unused_parameters=True)
    for batch in batches:
        train_step(ddp, optimizer, batch, drop=list(net.parameters()))


def released_and_looked_for(net, optimizer, batches, rank):
    net.body.requires_grad_(False)
    ddp = DDP(net, find_unused_parameters=True)
    for step, batch in enumerate(batches):
        if step == 2:
            net.body.requires_grad_(True)
        train_step(ddp, optimizer, batch)


RIGHT = (solution, zeros_and_dropped_on_all, averaged_by_hand)
WRONG = {
    as_given: "it raised RuntimeError: Expected to have finished reduction",
    zeros: "hidden_task1.weight, hidden_task2.weight moved in a step on the other task",
    dropped_on_rank_0: "the ranks part. hidden_task1.weight, from step 1: on rank 0 it stayed",
    not_wrapped: "its gradient was not averaged",
    too_few: "it took 2 steps on rank 0 and 2 on rank 1: one for each batch",
    one_rank_stops: "a rank waited for the other in vain, at line 4: train_step(ddp, optimizer, batch)",
    everything_frozen: "it did not train what one process with all the data would have",
}
NAMES = ("released_after", "one_rank_frozen", "one_rank_skips", "lr_zero")


@pytest.fixture(scope="module")
def outcomes():
    """All in one launch: starting two processes takes seconds."""
    functions = [*RIGHT, *WRONG]
    chosen = {**{f.__name__: exercise(f) for f in functions}, **ways(*NAMES)}
    chosen["released_and_looked_for"] = Variant(released_and_looked_for, "", "mlp")
    return dict(zip(chosen, run_variants(chosen.values(), limit=3), strict=True))


@pytest.mark.parametrize("function", RIGHT)
def test_right_solutions(outcomes, function):
    verdict = judge(outcomes[function.__name__], 60)
    assert verdict.passed, verdict
    assert len(verdict.lines) == 5


@pytest.mark.parametrize("function", WRONG)
def test_each_mistake_is_told(outcomes, function):
    verdict = judge(outcomes[function.__name__], 60)
    assert not verdict.passed
    assert WRONG[function] in " ".join(line.text for line in verdict.lines if not line.ok)


def test_what_is_released_after_wrapping_is_not_looked_for(outcomes):
    assert outcomes["released_and_looked_for"].verdict == APART
    assert set(outcomes["released_and_looked_for"].comparison.first) == {"body.weight", "body.bias"}


def test_the_check_runs_the_function():
    verdict = check_both_ranks(solution)
    assert verdict.passed, verdict


def test_the_table(outcomes):
    some = {name: outcomes[name] for name in NAMES}
    assert [outcome.verdict for outcome in some.values()] == [APART, ERROR, HANGS, WORKS]
    guesses = {"released_after": " W", "one_rank_frozen": "error", "lr_zero": "?"}
    shown = repr(outcome_table(some, "ways", guesses))
    assert "ways; 1 of 2 guesses right" in shown
    lines = {line.split()[0]: line for line in shown.splitlines()[2:]}
    assert "≠ ranks apart" in lines["released_after"]
    assert lines["released_after"].endswith("✗ works")
    assert "✓ error" in lines["one_rank_frozen"]
    assert "∞ hangs" in lines["one_rank_skips"]
    assert lines["lr_zero"].split()[-1] == "–"
    assert "no guess yet" in repr(outcome_table(some, "ways", {"lr_zero": "?"}))
    assert "guess" not in repr(outcome_table(some, "ways", {}))
    with pytest.raises(ValueError, match="a guess for 'nothing', but the ways are: released_after"):
        outcome_table(some, "ways", {"nothing": "works"})
    with pytest.raises(ValueError, match="lr_zero: 'fine' is no verdict; the verdicts are: works, error"):
        outcome_table(some, "ways", {"lr_zero": "fine"})


@pytest.mark.parametrize(
    ("guess", "said"), [("maybe", "'maybe' is no verdict"), (3, "3 is no"), (None, "None is")]
)
def test_a_guess_that_is_no_verdict_is_refused_before_anything_runs(guess, said, monkeypatch):
    monkeypatch.setattr(lesson_09, "run_variants", lambda *_: pytest.fail("it ran"))
    with pytest.raises(ValueError, match=f"alternate: {said}"):
        run_ways(ways("alternate"), {"alternate": guess})
    with pytest.raises(ValueError, match="a guess for 'turns', but the ways are: alternate"):
        run_ways(ways("alternate"), {"turns": "w"})


def test_what_is_raised(outcomes):
    shown = repr(errors_table({name: outcomes[name] for name in NAMES}))
    assert "DDP expects same model across all ranks" in shown
    assert "none before the time limit" in shown
    assert "released_after" not in shown


def test_the_ledger_of_one_rank(outcomes):
    outcome = outcomes["released_after"]
    for rank, run in enumerate(outcome.runs):
        assert steps_of(outcome, rank) == run.record.steps
    assert "4 steps: which tensor moved in which step" in repr(ledger_of(outcome, 1))
    with pytest.raises(ValueError, match="no ledger of rank 2"):
        steps_of(outcome, 2)


def test_ways_and_their_code():
    assert list(ways()) == list(VARIANTS)
    with pytest.raises(ValueError, match="no way 'lr'; the ways are: alternate"):
        ways("lr")
    code = code_of(VARIANTS["lr_zero"].train)
    assert code.splitlines()[:2] == ["def lr_zero(net, optimizer, batches, rank):", "    ddp = DDP(net)"]
    compile(code, "code", "exec")
