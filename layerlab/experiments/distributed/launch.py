"""Start two processes on this machine by torchrun, run training functions in them, and end them for sure."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch.distributed as dist

from layerlab.experiments.distributed.jobs import DIED, Failure, Job, RankRun
from layerlab.experiments.distributed.on_rank import PLAN, ready_name, result_name
from layerlab.experiments.distributed.worker import LAUNCHER

RANKS = 2
LIMIT = 5.0
"""Seconds that a rank waits for the other; torch's own limit for gloo is half an hour."""
PATIENCE = 150.0
"""Seconds for everything, the start of Python on a busy machine included."""

_THEIRS = ("MASTER_", "TORCHELASTIC_", "TORCH_DISTRIBUTED_", "GLOO_", "NCCL_", "OMP_", "MKL_", "PET_")
_EXACTLY = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "ROLE_RANK",
    "PYTHONWARNINGS",
)


def run_on_two_ranks(
    jobs: Sequence[Job], *, limit: float = LIMIT, patience: float = PATIENCE
) -> list[list[RankRun | None]]:
    """Run each job in two processes (backend gloo, on the CPU, over the loopback interface).

    Parameters
    ----------
    jobs
        Run one after the other, each in a process group of its own.
    limit
        Seconds after which a rank that waits for the other gives up: that job hangs.
    patience
        Seconds after which both processes are ended, whatever they do.

    Returns
    -------
    list
        For each job what each rank did; None where a rank came to no end. A process that dies ends the other
        one too: then this and the jobs after it have a failure.

    Raises
    ------
    RuntimeError
        If this PyTorch has no gloo, or the processes could not start.

    Notes
    -----
    The processes never outlive the call, whether it returns, raises or is interrupted.
    """
    if not (dist.is_available() and dist.is_gloo_available()):
        raise RuntimeError(
            "two processes need PyTorch's gloo backend, which this PyTorch was built without "
            "(torch.distributed.is_gloo_available() is False): read this lesson's stored outputs instead"
        )
    with tempfile.TemporaryDirectory(prefix="layerlab-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / PLAN).write_bytes(pickle.dumps((list(jobs), limit)))
        ended, said = _torchrun(folder, patience)
        found = [[_read(folder, number, rank) for rank in range(RANKS)] for number in range(len(jobs))]
        began = all((folder / ready_name(rank)).exists() for rank in range(RANKS))
    if ended not in (None, 0) and not began:
        last = [line for line in said.splitlines() if line.strip()][-3:]
        raise RuntimeError("the two processes could not run: " + " | ".join(last))
    return _with_what_died(found, said) if ended not in (None, 0) else found


def _with_what_died(found: list[list[RankRun | None]], said: str) -> list[list[RankRun | None]]:
    """Say that a process died in the first job without results, and that those after it did not run."""
    status = re.search(r"exitcode\s*: (-?\d+)", said)  # torchrun's word for it: −9 is signal 9
    text = "a rank was gone before its time (os._exit, a crash, too little memory)"
    text += f", with exit status {status[1]}" if status else ""
    for runs in found:
        if None in runs:
            for rank, run in enumerate(runs):
                runs[rank] = run or RankRun(rank, failure=Failure(DIED, text, ""))
            text = "not run: a rank was gone in a way before this one"
    return found


def _torchrun(folder: Path, patience: float) -> tuple[int | None, str]:
    """Run the workers to their end; its exit status (None if it took too long) and what it wrote."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={RANKS}"),
        *("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--local-addr=127.0.0.1"),  # a free port
        *(f"--log-dir={folder}", "-m", "layerlab.experiments.distributed.worker", str(folder)),
    ]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            ended: int | None = process.wait(patience)
        except subprocess.TimeoutExpired:
            ended = None
        finally:
            if process.poll() is None:  # too late, or interrupted
                _end(process, folder)
    return ended, log.read_text(encoding="utf-8", errors="replace")


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what another distributed run may have left in it."""
    kept = {k: v for k, v in ours.items() if not k.startswith(_THEIRS) and k not in _EXACTLY}
    kept |= {"OMP_NUM_THREADS": "1", LAUNCHER: str(os.getpid())}
    # This very package, also where it is not installed but found through the current folder.
    kept["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[3]), *filter(None, [ours.get("PYTHONPATH")])]
    )
    if sys.platform in ("linux", "darwin"):
        kept["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    if sys.platform == "win32":
        kept["USE_LIBUV"] = "0"  # PyTorch for Windows is built without it
    return kept


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """End torchrun and the processes that it started; one that just starts sees that it is gone."""
    kill = signal.SIGTERM if os.name != "posix" else signal.SIGKILL
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, kill)
        process.kill()
    process.wait()
    for file in folder.glob("*.pid"):
        with contextlib.suppress(OSError):
            os.kill(int(file.stem), kill)


def _read(folder: Path, number: int, rank: int) -> RankRun | None:
    file = folder / result_name(number, rank)
    if not file.exists():
        return None
    run: RankRun = pickle.loads(file.read_bytes())
    return run
