"""A combiner put together: a server's folder, and below it a membership of the server above."""

from __future__ import annotations

import shutil
from pathlib import Path

from hansa.combiner.relay import Relay
from hansa.errors import RequestRefused, ServerError
from hansa.identity import Invite, Membership, load_membership
from hansa.protocol.enrolment import enrol
from hansa.server.exchange import Desk
from hansa.server.federation import Pace
from hansa.server.founding import Founded, found
from hansa.server.settings import SETTINGS_FILE, UPWARD, ServerSettings, operated_by
from hansa.server.state import ServerState


class CombinerState(ServerState):
    """Everything that a running combiner has.

    Args:
      as `ServerState`.

    Raises:
      IdentityError: the folder has not joined a server above.
    """

    def __init__(self, folder: Path, settings: ServerSettings | None = None) -> None:
        membership = load_membership(folder / UPWARD)
        super().__init__(folder, settings)
        self.submitters_pem = membership.trusted_pem
        self.runs = Relay(
            folder,
            membership,
            self.hub,
            Desk(self.journal, self.updates, self.receipt_key),
            stores=self.stores,
            pace=Pace(self.settings.gather_s, self.settings.deadline_s),
        )


def found_combiner(folder: Path, invite: Invite, settings: ServerSettings, *, admin: str
                   ) -> tuple[Founded, Membership]:  # fmt: skip
    """Join the server above, and make the server that this combiner is to its own sites.

    What an interrupted call has left is used again, so the same call completes it.

    Args:
      folder: must not hold a server.
      invite: of the server above, for a combiner.
      settings: go into server.toml.
      admin: name of the first admin here.

    Raises:
      ServerError: the folder holds a server, or the one above cannot be reached.
      IdentityError, RequestRefused: as `enrol`.
    """
    if (folder / SETTINGS_FILE).exists():
        raise ServerError(
            "server-exists",
            f"{folder.resolve()} holds a server already. Nothing was sent or changed.",
            f"Start it with: {operated_by(folder)} start --folder {folder}, "
            "or choose another folder.",
        )
    upward = folder / UPWARD
    if (upward / "member.json").exists():
        membership = load_membership(upward)
    else:
        membership = _joined(invite, upward)
    return found(folder, settings, admin=admin), membership


def _joined(invite: Invite, upward: Path) -> Membership:
    """Join the server above; an invitation that it refuses leaves no folder behind."""
    made = not upward.parent.exists()
    try:
        return enrol(invite, upward, kind="combiner")
    except RequestRefused as error:
        if error.code == "invite-refused":  # then nobody knows the key that was made for it
            shutil.rmtree(upward.parent if made else upward, ignore_errors=True)
        raise
