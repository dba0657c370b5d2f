"""What clients answer to a named task: files that are checked, kept and read, and never summed."""

from __future__ import annotations

from hansa.aggregators import Contribution
from hansa.errors import HansaError, ParamsError, RequestRefused, UpdateRefused
from hansa.protocol.messages import TaskResult
from hansa.rounds.questions import Answer, unpacked
from hansa.server.round_files import Updates
from hansa.server.sums import Ask
from hansa.store.files import load_params


class Answers:
    """The answers of one exchange; in the place of a `RoundSum`.

    They stay on the disk and are mapped into memory when the workflow looks at them.

    Args:
      ask: of the exchange.
      updates: where sites' uploads are.
    """

    def __init__(self, ask: Ask, updates: Updates) -> None:
        self._ask, self._updates = ask, updates

    def admitted(self, client: str, result: TaskResult, *, most: float | None) -> Contribution:
        """Read an uploaded answer and let it through the door, or not.

        Raises:
          UpdateRefused: task-answer, it is none.
          RequestRefused: update-missing, it has not been uploaded.
        """
        store = self._updates.of(self._ask.run, self._ask.number, client)
        if result.update is None or not store.has(result.update.digest):
            raise RequestRefused(
                "update-missing",
                f"The answer of {client} has not been uploaded.",
                "Upload it, then report it again.",
                status=409,
            )
        if (size := store.size(result.update.digest)) != result.update.size:
            raise _refused(client, f"it has {size} bytes, and its report says otherwise")
        try:
            unpacked(load_params(store.path(result.update.digest)))
        except ParamsError as error:
            raise _refused(client, error.happened) from None
        except ValueError as error:
            raise _refused(client, str(error)) from None
        return Contribution(client, {}, 0.0)

    def again(self, client: str, digest: str, *, weight: float) -> Contribution | None:
        """Return an answer that counted before a crash; None if it is lost or damaged."""
        try:
            whole = self._updates.of(self._ask.run, self._ask.number, client).intact(digest)
        except HansaError:
            return None
        return Contribution(client, {}, weight) if whole else None

    def fold(self, contribution: Contribution) -> None:
        """Do nothing: an answer lies where it was uploaded."""

    def give_up(self, label: str) -> None:
        """Do nothing: an answer that does not count takes no room in a sum."""

    def read(self, client: str, digest: str) -> Answer:
        """Return an answer that counts."""
        store = self._updates.of(self._ask.run, self._ask.number, client)
        return unpacked(load_params(store.path(digest)))


def _refused(client: str, why: str) -> UpdateRefused:
    return UpdateRefused(
        "task-answer",
        f"The answer of {client} cannot be read: {why}. It was not counted.",
        "Send what the project's function returned, as it is.",
    )
