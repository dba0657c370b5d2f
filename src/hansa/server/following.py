"""What becomes durable while the next round begins: one step after the other, in a thread.

Reaching the disk takes longer than most of what a server does in a round.  So the model of a
committed round is given out while it is being synchronised, and everything that follows from it
waits: nothing of the next round is recorded before the commit is, and no site forgets the update
that it holds.  A crash in between leaves the round open with all its updates, and the same model
comes out of them again (law L3).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Following:
    """Does steps in order, in a thread of its own; after one that failed, none.

    Args:
      name: of the thread.
      failed: called after a step that failed, for whoever does not wait for it.
    """

    def __init__(self, name: str, failed: Callable[[], object] = lambda: None) -> None:
        self._failed = failed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)  # begins with the first step
        self._last: Future[None] = Future()
        self._last.set_result(None)

    def then(self, step: Callable[[], object]) -> Future[None]:
        """Do a step once all that came before are done; return at once."""
        before = self._last

        def work() -> None:
            before.result()
            step()

        self._last = self._thread.submit(work)
        self._last.add_done_callback(self._look)
        return self._last

    def settle(self) -> None:
        """Wait for all steps.

        Raises:
          whatever the first that failed has raised.
        """
        self._last.result()

    def check(self) -> None:
        """Raise what a step has raised, and wait for none."""
        if self._last.done():
            self._last.result()

    def _look(self, done: Future[None]) -> None:
        if done.exception() is not None:
            self._failed()

    def close(self) -> None:
        """End the thread, and otherwise do as `settle`."""
        self._thread.shutdown()
        self._last.result()
