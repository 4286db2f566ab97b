"""What each of the two processes does: it runs every job in a process group of its own."""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import pickle
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from layerlab.experiments.distributed import variants
from layerlab.experiments.distributed.jobs import Failure, Job, Moment, RankRun
from layerlab.experiments.distributed.problems import batches, network, optimizer_of
from layerlab.ledger import watch
from layerlab.training.ranks import Ranks

PLAN = "plan.pickle"


def run_jobs(folder: Path) -> None:
    """Run the folder's jobs one after the other; this rank's `RankRun` of each comes into the folder."""
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    plan, limit = pickle.loads((folder / PLAN).read_bytes())
    _import_what_takes_long(plan)
    (folder / ready_name(rank)).touch()
    _wait_for(folder / ready_name(other) for other in range(world))
    for number, job in enumerate(plan):
        # A group for each job: what one leaves half done must not meet what the next one sends.
        store = dist.FileStore(str(folder / f"{number}.store"), world)  # type: ignore[attr-defined]
        patience = timedelta(seconds=limit)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=patience)
        try:
            _write(folder, number, run_job(job, rank, limit))
            # Leaving the group early would look like a crash.
            _wait_for(folder / result_name(number, other) for other in range(world))
        finally:
            dist.destroy_process_group()


def _import_what_takes_long(plan: Iterable[Job]) -> None:
    """Else the first training step would: the ranks would wait for each other's imports, and for too long."""
    import_module("torch._dynamo")  # by the first optimizer
    if any(job.own_optimizer for job in plan):
        import_module("torch.distributed.fsdp")


def run_job(job: Job, rank: int, limit: float) -> RankRun:
    """Run one job on this rank, and note what happens; an exception is noted, and not raised."""
    run = RankRun(rank)
    net = network(job.problem)
    printed = io.StringIO()
    started = time.monotonic()
    last = [started]

    def note(*_: object) -> None:
        run.moments.append(_copy(net))
        last[0] = time.monotonic()

    note()
    handle = register_optimizer_step_post_hook(note)
    try:
        with contextlib.redirect_stdout(printed):
            train, mine = _function(job), batches(job.problem, rank)
            if job.own_optimizer:
                train(net, mine, rank)
            else:
                optimizer = optimizer_of(net)
                with _watched(net, optimizer, run):
                    train(net, optimizer, mine, rank)
    except (Exception, SystemExit) as error:
        run.hung = time.monotonic() - last[0] >= limit
        run.failure = Failure(type(error).__name__, str(error), _where(error, job))
    finally:
        handle.remove()
        run.printed = printed.getvalue()
    return run


@contextlib.contextmanager
def _watched(net: nn.Module, optimizer: Optimizer, run: RankRun) -> Iterator[None]:
    with watch(net, optimizer) as ledger:
        ranks = Ranks(ledger, net)
        try:
            yield
        finally:
            run.record, run.alarms = ranks.record, ledger.alarms


def _function(job: Job) -> Callable[..., Any]:
    """The job's function, made from its source where the names of `variants` are known."""
    file = _file(job)
    linecache.cache[file] = (len(job.source), None, job.source.splitlines(keepends=True), file)
    names = {**vars(variants), "torch": torch, "__name__": job.name}
    exec(compile(job.source, file, "exec", dont_inherit=True), names)
    function: Callable[..., Any] = names[job.name]
    return function


def _file(job: Job) -> str:
    return f"<{job.name}>"


def _where(error: BaseException, job: Job) -> str:
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == _file(job)]
    return f"line {lines[-1].lineno}: {(lines[-1].line or '').strip()}" if lines else ""


def _copy(net: nn.Module) -> Moment:
    return {
        name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
        for name, p in net.named_parameters()
    }


def _write(folder: Path, number: int, run: RankRun) -> None:
    finished = folder / result_name(number, run.rank)
    unfinished = finished.with_suffix(".part")
    unfinished.write_bytes(pickle.dumps(run))
    unfinished.replace(finished)


def ready_name(rank: int) -> str:
    """The file by which a rank says that it is about to begin."""
    return f"{rank}.ready"


def result_name(number: int, rank: int) -> str:
    """The file of what a rank did with a job."""
    return f"{number}-{rank}.pickle"


def _wait_for(files: Iterable[Path]) -> None:
    """Whoever started this sets the limit; see `layerlab.experiments.distributed.launch`."""
    for file in files:
        while not file.exists():
            time.sleep(0.01)
