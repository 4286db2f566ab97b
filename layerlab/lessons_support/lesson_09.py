"""Lesson 09's tables, and the check of its exercise, which runs in two processes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from layerlab.experiments.distributed.launch import LIMIT
from layerlab.experiments.distributed.outcome import (
    APART,
    ERROR,
    HANGS,
    MOVED,
    VERDICTS,
    WORKS,
    Outcome,
    first_sentence,
    run_variants,
)
from layerlab.experiments.distributed.problems import STEPS, batches, network, optimizer_of
from layerlab.experiments.distributed.variants import VARIANTS, Train, Variant
from layerlab.lessons_support.checks import Check
from layerlab.lessons_support.verdict import Verdict
from layerlab.record import Step
from layerlab.show import Shown, describe_steps, short, table
from layerlab.show.words import cut

SIGNS = {WORKS: "✓", ERROR: "✗", HANGS: "∞", APART: "≠", MOVED: "!"}
_IDLE = ("hidden_task2.weight", "hidden_task1.weight")


def verdict_words() -> Shown:
    """Show what each verdict means."""
    rows = [{"": SIGNS[word], "verdict": word, "means": means} for word, means in VERDICTS.items()]
    return table(rows, title="what may come of it")


def outcome_table(outcomes: Mapping[str, Outcome], title: str, guesses: Mapping[str, str]) -> Shown:
    """Show what came of each way, how far the ranks' parameters are apart, and what the learner guessed.

    Raises
    ------
    ValueError
        If a guess is for no way in the table, or does not begin as a verdict (``"?"`` is none yet).
    """
    made = _made(guesses, outcomes)
    right = sum(outcomes[name].verdict == guess for name, guess in made.items())
    rows = []
    for name, outcome in outcomes.items():
        row: dict[str, object] = {"name": name, "way": outcome.variant.says}
        none = ", but no step was taken" if outcome.verdict == WORKS and not outcome.steps else ""
        row["result"] = f"{SIGNS[outcome.verdict]} {outcome.verdict}{none}"
        row["apart by at most"] = short(outcome.apart, 1) if outcome.apart else None
        if guesses:
            mine = made.get(name)
            row["your guess"] = f"{'✓' if mine == outcome.verdict else '✗'} {mine}" if mine else None
        rows.append(row)
    counted = f"; {right} of {len(made)} guesses right" if made else "; no guess yet" if guesses else ""
    return table(rows, title=title + counted)


def _made(guesses: Mapping[str, str], ways: Collection[str]) -> dict[str, str]:
    """The verdicts that were guessed."""
    if unknown := [name for name in guesses if name not in ways]:
        raise ValueError(f"a guess for {unknown[0]!r}, but the ways are: {', '.join(ways)}")
    return {name: _verdict(name, guess) for name, guess in guesses.items() if guess != "?"}


def _verdict(name: str, guess: object) -> str:
    """The verdict that begins like this: a letter will do."""
    begins = guess.strip().lower() if isinstance(guess, str) else ""
    for verdict in VERDICTS:
        if begins and verdict.startswith(begins):
            return verdict
    raise ValueError(f"{name}: {guess!r} is no verdict; the verdicts are: {', '.join(VERDICTS)}")


def errors_table(outcomes: Mapping[str, Outcome]) -> Shown:
    """Show the exceptions: at which line of the way's code, and the first sentence."""
    rows = []
    for name, outcome in outcomes.items():
        if outcome.failure is None:
            continue
        said = first_sentence(outcome.failure)
        if outcome.verdict == HANGS:  # what gloo says then names its own source file
            said = f"none before the time limit, here {LIMIT:g} s"
        rows.append({"name": name, "steps taken": outcome.steps, "what PyTorch says": said})
    return table(rows, title="what is raised, and after how many steps")


def steps_of(outcome: Outcome, rank: int) -> tuple[Step, ...]:
    """Give one rank's ledger as steps.

    Raises
    ------
    ValueError
        If there is no ledger of that rank.
    """
    for run in outcome.runs:
        if run is not None and run.rank == rank and run.record is not None:
            return run.record.steps
    raise ValueError(f"there is no ledger of rank {rank}")


def ledger_of(outcome: Outcome, rank: int) -> Shown:
    """Show one rank's ledger, as that rank alone would see it."""
    steps = steps_of(outcome, rank)
    alarms = next(run.alarms for run in outcome.runs if run is not None and run.rank == rank)
    return Shown(describe_steps(steps, alarms))


# -- the exercise


def check_both_ranks(train: Train, *, limit: float = LIMIT, patience: float = 60.0) -> Verdict:
    """Run the learner's function in two processes; the tasks take turns, from step to step.

    Parameters
    ----------
    train
        Called on each rank with the two-task network, AdamW, the rank's four batches, and the rank.
    limit, patience
        As for `layerlab.experiments.distributed.launch.run_on_two_ranks`.
    """
    (outcome,) = run_variants([exercise(train)], limit=limit, patience=patience)
    return judge(outcome, patience)


def exercise(train: Train) -> Variant:
    """Take a learner's function as a way to freeze: in each step the layer of the other task stays."""
    still = tuple((_IDLE[step % 2],) for step in range(STEPS))
    return Variant(train, "", "two tasks", still)


def judge(outcome: Outcome, patience: float) -> Verdict:
    """Say what is wrong with what the learner's function did on both ranks."""
    check = Check("both ranks train one model, and the idle layer stays")
    if outcome.verdict in (ERROR, HANGS):
        check.that(False, "", _broken(outcome, patience))
        return check.verdict()
    check.that(True, "it ran to its end on both ranks", "")
    first, second = (run for run in outcome.runs if run is not None)
    counts = [len(first.moments) - 1, len(second.moments) - 1]
    many = f"took {counts[0]} steps on rank 0 and {counts[1]} on rank 1"
    check.that(counts == [STEPS, STEPS], f"{STEPS} steps on each rank", f"it {many}: one for each batch")
    cause = "; ".join(f"{alarm.name}, from step {alarm.step}: {alarm.cause}" for alarm in _parted(outcome))
    check.that(
        outcome.apart == 0,
        "all parameters are the same on both ranks, bit for bit",
        f"the ranks part. {cause}",
    )
    check.that(
        not outcome.moved,
        "in every step the layer of the other task stayed",
        f"{', '.join(outcome.moved)} moved in a step on the other task: its gradient was a tensor of zeros, "
        "and only None makes step() skip it",
    )
    if counts == [STEPS, STEPS]:
        check.that(
            lambda: _as_one_process(outcome),
            "it trained what one process with all the data would have trained",
            "it did not train what one process with all the data would have: are all gradients averaged, and "
            "do all that a batch uses keep theirs?",
        )
    return check.verdict()


def _parted(outcome: Outcome) -> list[Any]:
    alarms = outcome.comparison.alarms if all(run and run.record for run in outcome.runs) else []
    return [alarm for alarm in alarms if alarm.level == "alarm"][:2]  # what parts later may follow from these


def _broken(outcome: Outcome, patience: float) -> str:
    failure = outcome.failure
    if outcome.verdict == ERROR and failure is not None:
        where = f", at {failure.where}" if failure.where else ""
        return f"it raised {cut(first_sentence(failure).rstrip('.'), 300)}{where}"
    if None in outcome.runs:
        return f"it came to no end in {patience:g} s"
    where = f", at {failure.where}" if failure and failure.where else ""
    return f"a rank waited for the other in vain{where}: both must call forward and backward equally often"


def _as_one_process(outcome: Outcome) -> bool:
    """Compare with a training on both ranks' batches put together, in which nothing is distributed."""
    net = network("two tasks")
    optimizer = optimizer_of(net)
    for one, other in zip(batches("two tasks", 0), batches("two tasks", 1), strict=True):
        optimizer.zero_grad()
        inputs, targets = torch.cat([one[0][0], other[0][0]]), torch.cat([one[1], other[1]])
        cross_entropy(net(inputs, one[0][1]), targets).backward()
        optimizer.step()
    run = outcome.runs[0]
    assert run is not None
    return all(
        torch.allclose(run.moments[-1][name], p.detach(), rtol=1e-2, atol=1e-3)
        for name, p in net.named_parameters()
    )


def ways(*names: str) -> dict[str, Variant]:
    """Pick some of `VARIANTS` by the names of their functions, in this order; all, if none is named."""
    if unknown := [name for name in names if name not in VARIANTS]:
        raise ValueError(f"there is no way {unknown[0]!r}; the ways are: {', '.join(VARIANTS)}")
    return {name: VARIANTS[name] for name in names or VARIANTS}


def run_ways(chosen: Mapping[str, Variant], guesses: Mapping[str, str] | None = None) -> dict[str, Outcome]:
    """Run the chosen ways in two processes, one after the other.

    Raises
    ------
    ValueError
        For a guess that `outcome_table` would refuse: before anything runs.
    """
    _made(guesses or {}, chosen)
    return dict(zip(chosen, run_variants(chosen.values()), strict=True))
