"""Did every process of a distributed run (every *rank*) do the same to every tensor? Compared bit by bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from layerlab.ledger import Ledger
from layerlab.names import tensors
from layerlab.record import Alarm, Level, Step, TensorStep
from layerlab.show import Shown
from layerlab.show.alphabet import ALPHABET
from layerlab.training.ranks_shown import describe_ranks


def digest(tensor: Tensor) -> str:
    """A short hash of a tensor's dtype, shape and bits: equal for two tensors just when they are the same."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    bits = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    kind = f"{plain.dtype} {tuple(plain.shape)} "
    return hashlib.blake2b(kind.encode() + bits, digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class RankRecord:
    """What one rank did: its steps, and a hash of every tensor before the first one and after each."""

    rank: int
    steps: tuple[Step, ...]
    digests: tuple[dict[str, str], ...]
    """By tensor name; the first entry is from before the first step."""


class Ranks:
    """Notes a hash of every tensor after every step of a ledger, on this rank alone: nothing is sent.

    When the run is over, every rank calls `compare`, and each gets the same answer.

    >>> with ll.watch(ddp, optimizer) as ledger:  # doctest: +SKIP
    ...     ranks = Ranks(ledger, ddp)
    ...     train(ddp, optimizer)
    >>> print(ranks.compare())  # doctest: +SKIP

    Parameters
    ----------
    ledger
        Of a ``with`` block that is being run.
    model
        The model that the ledger watches, wrapped or bare.

    Raises
    ------
    RuntimeError
        If the ledger is not recording: then it would tell of no step.

    Notes
    -----
    A tensor that did not move keeps its hash, so that a frozen part costs nothing. What moved is copied to
    the CPU and hashed: meant for finding a mistake in some steps, and not for a whole training on GPUs.
    """

    def __init__(self, ledger: Ledger, model: nn.Module) -> None:
        if not ledger.recording:
            raise RuntimeError("the ledger is not recording: call Ranks(ledger, model) inside its with block")
        self._ledger, self._model = ledger, model
        self._digests = [{t.name: digest(t.tensor) for t in tensors(model)}]
        ledger.follow(self._note)

    @property
    def record(self) -> RankRecord:
        """All that this rank did so far: plain data, which can be pickled."""
        steps = tuple(self._ledger[: len(self._digests) - 1])
        return RankRecord(_this_rank(), steps, tuple(self._digests))

    def compare(self) -> RankComparison:
        """Gather the records of all ranks and compare them; every rank must call it.

        Raises
        ------
        RuntimeError
            If no process group is there (`torch.distributed.init_process_group`).
        """
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError("there is no process group: call init_process_group() first, on every rank")
        gathered: list[RankRecord | None] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, self.record)
        return compare_ranks([record for record in gathered if record is not None])

    def _note(self) -> None:
        if len(self._ledger) < len(self._digests):
            return  # the ledger also calls at its end
        moved, before = set(self._ledger[-1].moved), self._digests[-1]
        self._digests.append(
            {
                t.name: digest(t.tensor) if t.name in moved or t.name not in before else before[t.name]
                for t in tensors(self._model)
            }
        )


def _this_rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class RankComparison(Shown):
    """Which tensors ended a step with other bits on some rank; Jupyter shows it as a table.

    Made by `compare_ranks`.

    Attributes
    ----------
    first : dict
        From the name of each tensor that parted to the first step that left it so; −1: before the first.
    alarms : list of Alarm
        One for each parameter that parted. A buffer that parted gets a notice: each rank's BatchNorm has
        statistics of its own batches, until the next forward pass copies rank 0's.
    """

    def __init__(self, records: Sequence[RankRecord]) -> None:
        self.records = tuple(sorted(records, key=lambda record: record.rank))
        self.first = _first_apart(self.records)
        self.alarms = [*_uneven(self.records), *(_alarm(self.records, *one) for one in self.first.items())]
        super().__init__(describe_ranks(self))

    @property
    def apart(self) -> list[str]:
        """Names of the parameters and buffers that parted."""
        return list(self.first)


def compare_ranks(records: Sequence[RankRecord]) -> RankComparison:
    """Compare what the ranks of one run did: a tensor that is not the same on all of them is an alarm.

    Parameters
    ----------
    records
        `Ranks.record` of every rank.

    Raises
    ------
    ValueError
        For fewer than two records, or two of one rank.
    """
    numbers = [record.rank for record in records]
    if len(numbers) < 2:
        raise ValueError(f"give the records of two ranks or more, not of {len(numbers)}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"two records are of one rank: {', '.join(map(str, numbers))}")
    return RankComparison(records)


def _first_apart(records: Sequence[RankRecord]) -> dict[str, int]:
    """Of each tensor the first step after which not all ranks have it alike.

    Before the first step DistributedDataParallel may still have to copy rank 0's weights to the others: what
    is alike after step 0 is not held against it.
    """
    moments = list(zip(*(record.digests for record in records), strict=False))
    names = dict.fromkeys(name for moment in moments for one in moment for name in one)
    first = {}
    for name in names:
        apart = [len({one.get(name) for one in moment}) > 1 for moment in moments]
        if len(apart) > 1 and not apart[1]:
            apart[0] = False
        if any(apart):
            first[name] = apart.index(True) - 1
    return first


def _uneven(records: Sequence[RankRecord]) -> list[Alarm]:
    counts = [len(record.steps) for record in records]
    if len(set(counts)) == 1:
        return []
    said = ", ".join(f"{count} on rank {r.rank}" for count, r in zip(counts, records, strict=True))
    return [
        Alarm(
            "ranks-uneven", "alarm", "optimizer", min(counts), f"not as many steps on every rank: {said}",
            "a rank that takes a step alone waits for the others, or averages with another step of theirs",
            "# every rank must call forward, backward() and step() equally often",
        )
    ]  # fmt: skip


def _alarm(records: Sequence[RankRecord], name: str, step: int) -> Alarm:
    facts = {r.rank: r.steps[step].tensors.get(name) for r in records} if step >= 0 else {}
    known = {rank: fact for rank, fact in facts.items() if fact is not None}
    cause, cure = _cause(step, known, _some_unused(records, step))
    level: Level = "alarm"
    if known and all(fact.info.kind == "buffer" for fact in known.values()):
        level = "notice"
        cause = "a buffer that each rank's forward pass rewrites from its own batch"
        cure = "model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # before wrapping, on GPUs"
    return Alarm("ranks-apart", level, name, step, "not the same on all ranks", cause, cure)


ANEW = (
    "ddp = DistributedDataParallel(model)  # wrap anew, after every change of requires_grad\n"
    "# where a step does not use every layer: DistributedDataParallel(model, find_unused_parameters=True)"
)
LOOK = (
    "ddp = DistributedDataParallel(model, find_unused_parameters=True)"
    "  # where a step does not use every layer"
)
START = "# load the same weights on every rank, or wrap first: DistributedDataParallel copies rank 0's"
TOGETHER = (
    "frozen = torch.tensor([not p.requires_grad for p in model.parameters()], dtype=torch.int32)"
    "  # or what else this rank would freeze\n"
    "dist.all_reduce(frozen, op=dist.ReduceOp.MIN)  # 1 where all ranks would: freeze that, on every rank"
)


def _cause(step: int, facts: dict[int, TensorStep], unused: bool) -> tuple[str, str]:
    """Why a tensor parted, from what is on record, and the line that cures it."""
    anew = LOOK if unused else ANEW
    if step < 0 or not facts:
        return "it was not the same before the first step", START

    def by_rank(say: Callable[[TensorStep], str]) -> str:
        return ", ".join(f"{say(fact)} on rank {rank}" for rank, fact in facts.items())

    def differ(of: Callable[[TensorStep], object]) -> bool:
        return len({of(fact) for fact in facts.values()}) > 1

    fates = "; ".join(f"on rank {rank} it {_fate(fact)}" for rank, fact in facts.items())
    if differ(lambda fact: fact.moved):
        return fates, TOGETHER
    if differ(lambda fact: fact.lr):
        return "lr " + by_rank(lambda fact: str(fact.lr)), "# give every rank's optimizer the same lr"
    if differ(lambda fact: (fact.grad, fact.grad_max)):
        return "its gradient was not averaged: another one on each rank", anew
    return f"{fates}; the largest element of its gradient is the same", anew


def _some_unused(records: Sequence[RankRecord], step: int) -> bool:
    """Whether a trainable parameter got no gradient in this step, on some rank."""
    return step >= 0 and any(
        fact.info.kind == "parameter" and fact.requires_grad and fact.grad == "none"
        for record in records
        for fact in record.steps[step].tensors.values()
    )


def _fate(fact: TensorStep) -> str:
    return ALPHABET[fact.reason].sentence
