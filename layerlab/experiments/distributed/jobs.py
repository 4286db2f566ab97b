"""What is sent to the two processes, and what comes back: plain data that can be pickled."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from layerlab.experiments.distributed.problems import Problem
from layerlab.record import Alarm
from layerlab.training.ranks import RankRecord

Moment = dict[str, Tensor]
"""A copy of every parameter."""


@dataclass(frozen=True, slots=True)
class Job:
    """A training function as source code, and what it trains."""

    name: str
    source: str
    problem: Problem
    own_optimizer: bool = False
    """It makes its optimizer itself, and no ledger watches it."""


def job(function: Callable[..., Any], problem: Problem, *, own_optimizer: bool = False) -> Job:
    """Take a function's source, from a file or from a notebook's cell.

    Raises
    ------
    TypeError
        If it is no plain ``def`` function.
    ValueError
        If its source is not there: typed into a bare ``python``, for instance.
    """
    if not inspect.isfunction(function) or function.__name__ == "<lambda>":
        raise TypeError(f"give a function made with def, not {function!r:.80}")
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise ValueError(
            f"the source of {function.__name__} is not to be had: define it in a cell or in a file"
        ) from None
    return Job(function.__name__, source, problem, own_optimizer)


DIED = "ProcessEnded"
"""The kind of failure of a rank whose process was gone before it could say anything."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception on one rank."""

    kind: str
    """Its class, or `DIED`."""
    text: str
    where: str
    """The line of the function it passed through."""


@dataclass(slots=True)
class RankRun:
    """What one rank did with a job."""

    rank: int
    moments: list[Moment] = field(default_factory=list)
    """The parameters before the first step and after each, whatever a ledger says."""
    failure: Failure | None = None
    hung: bool = False
    """Whether the failure is that the other rank was waited for in vain."""
    record: RankRecord | None = None
    alarms: list[Alarm] = field(default_factory=list)
    printed: str = ""
