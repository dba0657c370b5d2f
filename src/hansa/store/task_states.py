"""What clients keep between named tasks, by digest: the part of a split model that is theirs.

    tasks/<ab>/<client>/<round>.<digest>.safetensors

A question names the state to begin from, so nothing here need know which one counts: after a crash
a step is done again from the state that the question names, whatever the first attempt has left.
Kept are the state that the round began from, for a simulation repeats whole rounds, the one that
the last task began from, for it may be asked again, and the one that it left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from hansa.errors import SiteError
from hansa.params import Params, encode
from hansa.store.addresses import digest_of_file, hex_of
from hansa.store.files import load_params, sync_folder


class TaskStates:
    """States of named tasks in a folder.

    Args:
      folder: made when the first state is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, client: str, digest: str) -> Params | None:
        """Return a state by its digest; None for "", which every client begins from.

        Raises:
          SiteError: site-damaged, it is not here any more, or not as it was written.
        """
        if not digest:
            return None
        wanted = hex_of(digest)
        for _, found, path in self._kept(client):
            if found == wanted and digest_of_file(path)[0] == digest:
                return load_params(path)
        raise SiteError(
            "site-damaged",
            f"What {client} has kept between its tasks, {digest[:19]}, is not here as it was "
            "written. Nothing was computed.",
            "Restore the folder states/ from a backup; or run anew.",
        )

    def save(self, client: str, number: int, state: Params, *, begun: str) -> None:
        """Write the state that a task has left; see `keep`."""
        place = self._place(client)
        place.mkdir(parents=True, exist_ok=True)
        file = place / "new"
        with file.open("wb") as opened:
            opened.writelines(encode(state))
        self.keep(client, number, file, begun=begun)

    def keep(self, client: str, number: int, file: Path, *, begun: str) -> None:
        """Take the file of a state into the folder, durably, and forget what nobody asks for.

        Args:
          client: whose it is.
          number: of the round.
          file: with the state; it is moved.
          begun: digest of the state that the task began from.

        Raises:
          ParamsError: it could not be read back.
        """
        load_params(file)
        place, made = self._place(client), hex_of(digest_of_file(file)[0])
        place.mkdir(parents=True, exist_ok=True)
        with open(file, "r+b") as written:
            os.fsync(written.fileno())
        before = hex_of(begun) if begun else ""
        since = max((n for n, found, _ in self._kept(client) if found == before), default=0)
        first = since < number  # the round began from it
        stays = {(number - first, before), (number, made)}
        if begun:
            old = place / f"{since}.{before}.safetensors"
            os.replace(old, place / f"{number - first}.{before}.safetensors")
        os.replace(file, place / f"{number}.{made}.safetensors")
        for since, found, path in list(self._kept(client)):
            if (first or since >= number) and (since, found) not in stays:
                path.unlink(missing_ok=True)
        sync_folder(place)

    def newest(self, client: str) -> list[Path]:
        """Return the files of the last round in which a client has left something."""
        kept = list(self._kept(client))
        last = max((number for number, _, _ in kept), default=0)
        return [path for number, _, path in kept if number == last]

    def _place(self, client: str) -> Path:
        name = blake3(client.encode()).hexdigest()[:24]
        return self._folder / name[:2] / name

    def _kept(self, client: str) -> Iterator[tuple[int, str, Path]]:
        try:
            names = sorted(os.listdir(self._place(client)))
        except FileNotFoundError:
            return
        for name in names:
            if name.endswith(".safetensors"):
                number, found, _ = name.split(".")
                yield int(number), found, self._place(client) / name
