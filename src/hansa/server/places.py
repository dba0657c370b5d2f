"""How many runs are at work at the same time, and which is the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Places:
    """So many runs may be at work; the others wait in the order in which they came.

    Args:
      number: of runs at work at the same time.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._queue: list[str] = []
        self._changed = threading.Condition()

    def take_now(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        with self._changed:
            if self._queue or not self._free:
                return False
            self._free -= 1
            return True

    def take(self, run: str, *, going: Callable[[], bool], ahead: bool = False) -> bool:
        """Wait for a place.

        Args:
          run: that waits.
          going: asked whenever `stir` is called; False ends the wait.
          ahead: of all others that wait.

        Returns:
          whether the run has a place now; False only if it is not going on.
        """
        with self._changed:
            self._queue.insert(0 if ahead else len(self._queue), run)
            try:
                self._changed.wait_for(
                    lambda: not going() or (self._free > 0 and self._queue[0] == run)
                )
                if not going():
                    return False
                self._free -= 1
                return True
            finally:
                self._queue.remove(run)
                self._changed.notify_all()

    def give_back(self) -> None:
        """Let another run have one's place."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    def stir(self) -> None:
        """Let all that wait look whether they are still going on."""
        with self._changed:
            self._changed.notify_all()
