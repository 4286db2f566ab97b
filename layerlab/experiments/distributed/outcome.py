"""What came of a way to freeze: decided on both ranks' parameters, bit by bit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from layerlab.compare import same_bits
from layerlab.experiments.distributed.jobs import DIED, Failure, Job, RankRun, job
from layerlab.experiments.distributed.launch import LIMIT, PATIENCE, run_on_two_ranks
from layerlab.experiments.distributed.variants import SHARDED, VARIANTS, Variant
from layerlab.training.ranks import RankComparison, compare_ranks

WORKS, ERROR, HANGS, APART, MOVED = "works", "error", "hangs", "ranks apart", "frozen moved"
VERDICTS = {
    WORKS: "no error, both ranks the same bit for bit, and what should stay did",
    ERROR: "an exception",
    HANGS: "a rank waits for the other until a time limit ends it",
    APART: "no error, but the ranks' parameters are not the same: each trains a model of its own",
    MOVED: "no error, both ranks the same, but what should stay moved",
}


@dataclass(frozen=True)
class Outcome:
    """What both ranks did with one variant."""

    variant: Variant
    runs: tuple[RankRun | None, ...]

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        failed = [run.hung for run in self.runs if run is not None and run.failure is not None]
        if not all(failed):  # the other rank then waits in vain, but that is not how it began
            return ERROR
        if failed or None in self.runs:
            return HANGS
        if self.apart:
            return APART
        return MOVED if self.moved else WORKS

    @property
    def failure(self) -> Failure | None:
        """The exception of the first rank that had one and did not merely suffer from the other."""
        causes = [
            (run.hung, run.failure.kind != DIED, run.rank, run.failure)
            for run in self.runs
            if run is not None and run.failure is not None
        ]
        return min(causes)[-1] if causes else None

    @property
    def apart(self) -> float:
        """The largest difference between two ranks' last parameters; 0 only if all bits are the same."""
        last = [run.moments[-1] for run in self.runs if run is not None and run.moments]
        largest = 0.0
        for other in last[1:]:
            for name, tensor in last[0].items():
                if not same_bits(tensor, other[name]):
                    difference = float((tensor - other[name]).abs().max())
                    largest = max(largest, difference if difference > 0 else math.ulp(0.0))
        return largest

    @property
    def steps(self) -> int:
        """How many steps were taken, on the rank that took most."""
        return max((len(run.moments) - 1 for run in self.runs if run is not None and run.moments), default=0)

    @property
    def moved(self) -> list[str]:
        """What moved in a step in which it was meant to stay, or was frozen, on some rank."""
        found: dict[str, None] = {}
        for run in filter(None, self.runs):
            for step in run.record.steps if run.record is not None else ():
                found |= dict.fromkeys(
                    n for n, t in step.items() if t.info.kind == "parameter" and t.frozen and t.moved
                )
            steps = zip(run.moments, run.moments[1:], self.variant.still, strict=False)
            for before, after, still in steps:
                found |= dict.fromkeys(n for n in still if not same_bits(before[n], after[n]))
        return list(found)

    @cached_property
    def comparison(self) -> RankComparison:
        """The ledgers of both ranks, compared.

        Raises
        ------
        ValueError
            If there are not two ledgers: a rank came to no end, or none was kept.
        """
        records = [run.record for run in self.runs if run is not None and run.record is not None]
        if len(records) < len(self.runs):
            name = self.variant.train.__name__
            raise ValueError(
                f"{name}: {len(records)} of {len(self.runs)} ranks kept a ledger; nothing to compare"
            )
        return compare_ranks(records)

    def __repr__(self) -> str:
        return f"Outcome({self.variant.train.__name__}: {self.verdict})"


def first_sentence(failure: Failure) -> str:
    """An exception in one line: its class, and its message up to the first full stop."""
    text = " ".join(failure.text.split())
    head, dot, _ = text.partition(". ")
    return f"{failure.kind}: {head}{'.' if dot else ''}"


def run_variants(
    variants: Iterable[Variant], *, limit: float = LIMIT, patience: float = PATIENCE
) -> list[Outcome]:
    """Run variants in two processes, one after the other; parameters and errors as for `run_on_two_ranks`."""
    asked: list[Any] = list(variants)
    for one in asked:
        if not isinstance(one, Variant):
            kind = type(one).__name__
            raise TypeError(f'a way is Variant(function, "what it does", "mlp" or "two tasks"), not a {kind}')
    return [
        Outcome(variant, tuple(runs))
        for variant, runs in zip(asked, _runs(asked, limit, patience), strict=True)
    ]


def run_all(*, limit: float = LIMIT, patience: float = PATIENCE) -> dict[str, Outcome]:
    """Run every variant, DDP's and FSDP2's, by the names of their functions."""
    asked = {**VARIANTS, SHARDED.train.__name__: SHARDED}
    return dict(zip(asked, run_variants(asked.values(), limit=limit, patience=patience), strict=True))


def _runs(variants: Sequence[Variant], limit: float, patience: float) -> list[list[RankRun | None]]:
    jobs: list[Job] = [job(v.train, v.problem, own_optimizer=v is SHARDED) for v in variants]
    return run_on_two_ranks(jobs, limit=limit, patience=patience)
