"""Work in small pieces on the kernel's event loop, so that cells and clicks are heard between two of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class InTurns:
    """Does a piece after the other, in a task, until there is none to do. No thread: nothing runs meanwhile.

    Parameters
    ----------
    piece
        Does one and returns True, or has none to do and returns False. It must not raise.
    ended
        Called when the task ends: also when the loop ends and takes the task along.
    """

    def __init__(self, piece: Callable[[], bool], ended: Callable[[], None]) -> None:
        self._piece, self._ended = piece, ended
        self._task: asyncio.Task[None] | None = None

    def go(self) -> None:
        """See to it that a task is at work; RuntimeError where no event loop runs."""
        loop = running_loop()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._all())

    async def done(self) -> None:
        """Wait until no task is at work."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])  # leaves the task alone when the cell that waits is interrupted

    async def _all(self) -> None:
        try:
            while self._piece():
                await asyncio.sleep(0)
        finally:
            self._ended()


def running_loop() -> asyncio.AbstractEventLoop:
    """The loop that runs in this thread; RuntimeError, which says what to do instead, if none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "nothing can train in the background here, for no event loop runs: call train(), which trains to "
            "the end before it returns"
        ) from None
