"""One rank: torchrun starts it as ``python -m layerlab.experiments.distributed.worker FOLDER``."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

LAUNCHER = "LAYERLAB_LAUNCHER"
"""The environment variable with the process id of the notebook (or test) that all this is for."""


def main(folder: Path) -> None:
    """Run the jobs in the folder, and leave in it what came of them."""
    (folder / f"{os.getpid()}.pid").touch()  # before anything that takes long: so that it can be ended
    threading.Thread(target=_end_with_others, daemon=True).start()

    from layerlab.experiments.distributed.on_rank import run_jobs  # torch takes seconds

    run_jobs(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of gloo may outlive the interpreter


def _end_with_others() -> None:
    """End when torchrun has ended, or the process that it was started for."""
    if os.name != "posix":
        return  # there a parent's id stays when it ends, and asking for a process would end it
    parent, launcher = os.getppid(), int(os.environ.get(LAUNCHER, os.getppid()))
    while os.getppid() == parent and _is_there(launcher):
        time.sleep(0.2)
    os._exit(1)


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
