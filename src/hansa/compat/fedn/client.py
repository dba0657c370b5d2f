"""A FEDn client's command line, which starts a site: what a container runs.

    python -m hansa.compat.fedn.client run client -in client.yaml --name client1

`client.yaml` has FEDn's keys: `token` is the line that `hansa server invite` prints, whole or what
follows its #, with `api_url` (or `discover_host`) before it.  Hansa's own keys say what may run:

    submitters: [admin]    # whose plans run unasked; without it nothing runs
    sandbox: preferred     # or required, none

The site's folder is made at the first start and found again at the next.  `ENTRYPOINT_OPTS` of the
environment reaches the package's lines, as in FEDn.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hansa.compat.fedn.small_yaml import read_yaml
from hansa.errors import HansaError, SiteError
from hansa.identity import Invite, load_membership, parse_invite
from hansa.limits import PROJECT_FILE_BYTES_MAX
from hansa.protocol.enrolment import enrol
from hansa.site.policy import Policy
from hansa.site.settings import SITE_FILE, DataSource, SiteSettings, write_settings
from hansa.text import clean

OPTIONS = "ENTRYPOINT_OPTS"
_ADDRESS = ("api_url", "api_port", "discover_host", "discover_port")
_UNUSED = (
    "network_id", "client_id", "refresh_token", "preferred_combiner", "combiner", "combiner_port",
    "package_checksum", "helper_type", "trainer", "validator",
)  # fmt: skip
_KNOWN = ("name", "token", *_ADDRESS, "submitters", "sandbox")
_WORDS = (["run", "client"], ["client", "start"])  # of FEDn's generations
_LOOK_S = 1.0  # between two tries to reach a server that is not up yet


def main(words: Sequence[str] | None = None) -> None:
    """Join, unless that is done, and become the site's agent."""
    parser = _parser()
    asked = parser.parse_args(words)
    if asked.words not in _WORDS:
        parser.error(f"{' '.join(asked.words)!r} is not known here; it is: run client")
    folder: Path = asked.folder
    try:
        if not (folder / SITE_FILE).exists():
            _make_site(folder, read_config(asked.config), asked.name, asked.data)
    except HansaError as error:
        sys.exit(f"Error: {error}")
    if options := os.environ.get(OPTIONS):
        # Inside a sandbox the data have another path; the call of the package puts it there.
        os.environ[OPTIONS] = with_place(options, asked.data)
    sys.stdout.flush()
    os.execv(
        sys.executable,
        [sys.executable, "-P", "-m", "hansa", "site", "start", "--folder", str(folder)],
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fedn", description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs=2, metavar="run client", help="or: client start")
    parser.add_argument("-in", "--init", dest="config", type=Path, default=Path("client.yaml"))
    parser.add_argument("--name", help="of the client, if client.yaml does not say it")
    parser.add_argument(
        "--folder", type=Path, default=os.environ.get("HANSA_SITE", "site"), help="of the site"
    )
    parser.add_argument("--data", type=Path, default=Path("/var/data"), help="the client's data")
    return parser


def read_config(path: Path) -> dict[str, Any]:
    """Return what a client.yaml says.

    Raises:
      SiteError: site-settings, it is missing or has a key that is nobody's.
      PlanError: import-refused, it is more YAML than such files need.
    """
    try:
        if path.stat().st_size > PROJECT_FILE_BYTES_MAX:
            raise _unusable(f"{path} has more than {PROJECT_FILE_BYTES_MAX >> 20} MiB.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(f"{path} cannot be read: {error}.") from None
    said = read_yaml(text, str(path))
    if not isinstance(said, dict):
        raise _unusable(f"{path} holds no keys.")
    if odd := [key for key in said if key not in _KNOWN + _UNUSED]:
        raise _unusable(f"{path} has the key {clean(str(odd[0]))!r}, which means nothing here.")
    if unused := [key for key in said if key in _UNUSED]:
        print(f"Not used here: {', '.join(unused)}", flush=True)
    return said


def with_place(options: str, data: str | Path) -> str:
    """Return options in which the path of the data is a place: {data}.

    Only whole paths are meant, and what lies below one: neither an option of that name nor a path
    that begins alike.

    >>> with_place("--data_path=data/mnist.pt --data2=data2", "data")
    '--data_path={data}/mnist.pt --data2=data2'
    """
    place = Path(data)
    spellings = {str(data), str(data).rstrip("/"), str(place), f"./{place}", str(place.resolve())}
    longest = sorted(filter(None, spellings), key=len, reverse=True)
    paths = "|".join(map(re.escape, longest))
    return re.sub(rf"(?<![\w./-])(?:{paths})(?=[/\s\"':;,]|$)", "{data}", options)


def invitation(said: Mapping[str, Any]) -> Invite:
    """Return the invitation of a client.yaml.

    Raises:
      IdentityError: invite-malformed, there is none.
    """
    token = str(said.get("token") or "")
    if "#" in token:
        return parse_invite(token)
    host = str(said.get("api_url") or said.get("discover_host") or "").rstrip("/")
    port = said.get("api_port") or said.get("discover_port")
    host = host if "://" in host else f"https://{host}"
    return parse_invite(f"{host}{f':{port}' if port else ''}#{token}")


def _make_site(folder: Path, said: Mapping[str, Any], name: str | None, data: Path) -> None:
    invite, policy = invitation(said), _policy(said)
    if not data.exists():
        raise _unusable(f"There are no data at {data}.", "Mount them there, or give --data.")
    told = False
    while not (folder / "member.json").exists():
        try:
            enrol(invite, folder, kind="site")
        except HansaError as error:
            if error.code != "server-unreachable":
                raise
            if not told:
                print(f"{invite.url} cannot be reached yet; it is tried again.", flush=True)
            told = True
            threading.Event().wait(_LOOK_S)
    member = load_membership(folder)
    source = {"data": DataSource(path=str(data.resolve()))}
    write_settings(folder, SiteSettings(name=member.name, data=source, policy=policy))
    if (name or said.get("name") or member.name) != member.name:
        print(f"This client is called {member.name}, as its invitation says.", flush=True)
    if policy is None:
        print("No submitters are named in the configuration, so nothing runs here yet.", flush=True)


def _policy(said: Mapping[str, Any]) -> Policy | None:
    """Return what may run; None, and nothing may, where nobody is named."""
    whose = said.get("submitters")
    if not whose:
        return None
    table = {
        "submitters": whose if isinstance(whose, list) else [whose],
        "approve": "submitters",
        "sandbox": said.get("sandbox") or "preferred",
    }
    try:
        return msgspec.convert(table, Policy)
    except msgspec.ValidationError as error:
        raise _unusable(f"The configuration cannot be used: {error}.") from None


def _unusable(what: str, hint: str = "Correct the configuration.") -> SiteError:
    return SiteError("site-settings", f"{what} Nothing was started.", hint)


if __name__ == "__main__":
    main()
