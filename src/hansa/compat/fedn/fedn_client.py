"""FEDn's `FednClient`: a script's own callbacks train in the script's process, which is a site.

    client = FednClient(train_callback=train, validate_callback=validate)
    client.set_name("north")
    result, config = client.connect_to_api(url, token, {"name": "north", "package": "local"})
    if result == ConnectToApiResult.Assigned and client.init_grpchandler(config, "north", token):
        client.run()

The token is the line that `hansa server invite` has made; it is redeemed once, and a script that is
started again with the same line is the same site.  See ADR 0020.

With "package": "remote" the process is a usual site: each session's compute package is fetched with
the session, its digest is always checked, and it runs in workers of its own as the site's policy
allows.  Callbacks are not called then.
"""

from __future__ import annotations

import enum
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from hansa.compat.fedn.client import OPTIONS, invitation, with_place
from hansa.compat.fedn.present import HAND_OVER, bring
from hansa.compat.fedn.said import metrics_of
from hansa.compat.own_process import OwnProcess
from hansa.errors import HansaError, SiteError
from hansa.identity import load_membership
from hansa.identity.home import hansa_home
from hansa.protocol.enrolment import enrol
from hansa.site.agent import run_agent
from hansa.site.policy import Policy
from hansa.site.settings import (
    SITE_FILE,
    DataSource,
    SiteSettings,
    load_settings,
    parse_settings,
    settings_text,
    write_settings,
)

log = logging.getLogger("fedn")

FOLDER = "HANSA_SITE"
"""The site's folder, if it shall not be one below HANSA_HOME that goes by the token."""
SUBMITTERS = "HANSA_SUBMITTERS"
"""Names, with commas, whose sessions run without being asked; "submitters" of the configuration."""

_DATA = "data"
"""Name under which sessions of a package ask for the client's data."""

Callback = Callable[..., Any]


class ConnectToApiResult(enum.Enum):
    """What came of `connect_to_api`."""

    Assigned = 0
    ComputePackageMissing = 1
    UnAuthorized = 2
    UnMatchedConfig = 3
    IncorrectUrl = 4
    UnknownError = 5


class GrpcConnectionOptions:
    """Where a client connects to: here the server itself."""

    def __init__(
        self,
        host: str,
        port: int,
        status: str = "",
        fqdn: str = "",
        package: str = "",
        ip: str = "",
        helper_type: str = "",
    ) -> None:
        self.host, self.port, self.status, self.fqdn = host, port, status, fqdn
        self.package, self.ip, self.helper_type = package, ip, helper_type

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> GrpcConnectionOptions:
        """Return the options of a table; what it lacks is empty."""
        texts = ("status", "fqdn", "package", "ip", "helper_type")
        rest = {name: str(config.get(name, "")) for name in texts}
        return cls(str(config.get("host", "")), int(config.get("port", 0)), **rest)


class FednClient:
    """A client whose callbacks are functions of the script.

    Args:
      train_callback: is given the model's file as a BytesIO and, if it takes two arguments, the
        round's client settings; returns the trained model's file and metadata with num_examples.
      validate_callback: is given a model's file; returns JSON data, whose numbers are metrics.
      predict_callback: is given a model's file; returns JSON data.
    """

    def __init__(
        self,
        train_callback: Callback | None = None,
        validate_callback: Callback | None = None,
        predict_callback: Callback | None = None,
    ) -> None:
        self.train_callback = train_callback
        self.validate_callback = validate_callback
        self.predict_callback = predict_callback
        self.name = self.client_id = ""
        self._folder: Path | None = None
        self._remote = False
        self._data: str | None = None  # of packages: the client's own file or folder
        self._sandbox: str | None = None  # of packages, if it is said
        self._submitters: tuple[str, ...] = ()
        self._attributes: dict[str, str] = {}
        self._running = False
        self._logged: dict[str, float] | None = None  # of the task under way
        self._lock = threading.Lock()

    def set_train_callback(self, callback: Callback) -> None:
        """Set what trains."""
        self.train_callback = callback

    def set_validate_callback(self, callback: Callback) -> None:
        """Set what validates."""
        self.validate_callback = callback

    def set_predict_callback(self, callback: Callback) -> None:
        """Set what predicts."""
        self.predict_callback = callback

    def set_name(self, name: str) -> None:
        """Set a name for people; the federation knows the client by that of its invitation."""
        self.name = name

    def set_client_id(self, client_id: str) -> None:
        """Set an id; the federation knows the client by the name of its invitation."""
        self.client_id = client_id

    # ---- joining

    def connect_to_api(
        self, url: str, token: str | None, json: Mapping[str, Any]
    ) -> tuple[ConnectToApiResult, Any]:
        """Join the federation, or find that one has joined before.

        Args:
          url: of the server; if the token is a whole invitation it is not looked at.
          token: the line that the operator has made for this client.
          json: "name", "client_id", "package" ("local" or "remote"), and here "submitters": names
            of those whose sessions run without the owner's being asked; for packages also "data":
            path of this client's own, by default what FEDN_DATA_PATH says, and "sandbox".

        Returns:
          Assigned and where to connect; or another result and why, in a sentence.
        """
        package = str(json.get("package", "local"))
        if package not in ("local", "remote"):
            return ConnectToApiResult.UnMatchedConfig, f"package is {package!r:.40}, not local"
        self._remote = package == "remote"
        self._data = json.get("data") or os.environ.get("FEDN_DATA_PATH")
        self._sandbox = json.get("sandbox")
        try:
            folder = _folder_of(url, token)
            if not (folder / "member.json").exists():
                enrol(invitation({"token": token, "api_url": url}), folder, kind="site")
            member = load_membership(folder)
        except HansaError as error:
            log.warning("%s %s", error.happened, error.hint)
            down = error.code == "server-unreachable"
            result = ConnectToApiResult.UnknownError if down else ConnectToApiResult.UnAuthorized
            return result, error.sentences
        self._folder = folder
        self._submitters = _names(json.get("submitters") or os.environ.get(SUBMITTERS, ""))
        if (said := str(json.get("name") or "")) not in ("", member.name):
            log.warning("This client is called %s, as its invitation says.", member.name)
        self.name = said or self.name or member.name
        self.client_id = member.name
        host, _, port = member.url.partition("://")[2].partition(":")
        options = GrpcConnectionOptions(host, int(port or 443), "assigned", package=package)
        return ConnectToApiResult.Assigned, options

    def init_grpchandler(self, config: Any, client_name: str, token: str | None) -> bool:
        """Tell whether the client has joined; there is no other connection than `run` makes."""
        if self._folder is None:
            log.error("The client has not joined: connect_to_api was not Assigned.")
        return self._folder is not None

    def run(
        self, with_telemetry: bool = True, with_heartbeat: bool = True, with_polling: bool = True
    ) -> None:
        """Take part until SIGTERM or Ctrl-C; the switches have no effect.

        Raises:
          SystemExit: it cannot take part; the sentence says why.
        """
        try:
            if self._folder is None:
                raise SiteError(
                    "site-missing",
                    "The client has not joined a federation.",
                    "Call connect_to_api first, and look at its result.",
                )
            self._settle(self._folder)
            self._running = True
            if self._remote:
                run_agent(self._folder, started=_told)
                return
            bring(self)
            workers = partial(OwnProcess, hand_over=HAND_OVER)
            run_agent(self._folder, started=_told, workers=workers)
        except HansaError as error:
            sys.exit(f"Error: {error}")
        finally:
            bring(None)

    def _settle(self, folder: Path) -> None:
        """Write down what the script says of the site; the rest of its site.toml is the owner's."""
        if (folder / SITE_FILE).exists():
            old = load_settings(folder)
        else:
            old = SiteSettings(name=load_membership(folder).name)
        policy, data = old.policy or Policy(sandbox="preferred"), dict(old.data)
        if self._sandbox:
            policy = msgspec.structs.replace(policy, sandbox=self._sandbox)
        if self._remote and self._data is not None:
            data[_DATA] = DataSource(path=str(Path(self._data).resolve()))
            if options := os.environ.get(OPTIONS):  # in a sandbox the data have another path
                os.environ[OPTIONS] = with_place(options, self._data)
        if self._submitters:
            policy = msgspec.structs.replace(
                policy, submitters=self._submitters, approve="submitters"
            )
        said = {**old.attributes, **self._attributes}
        new = msgspec.structs.replace(old, policy=policy, attributes=said, data=data)
        if new != old:
            parse_settings(settings_text(new))  # refused before it is written
            write_settings(folder, new)
        if policy.approve == "ask":
            print(
                f"Each session waits for your word: hansa site requests --folder {folder}; or "
                f"name who may submit, in {SUBMITTERS}.",
                flush=True,
            )

    # ---- what callbacks say meanwhile

    @contextmanager
    def at_work(self) -> Iterator[dict[str, float]]:
        """Collect what `log_metric` is given during a callback."""
        logged: dict[str, float] = {}
        with self._lock:
            self._logged = logged
        try:
            yield logged
        finally:
            with self._lock:
                self._logged = None

    def log_metric(
        self, metrics: Mapping[str, Any], step: int | None = None, commit: bool = True
    ) -> bool:
        """Let numbers go with the result of the callback under way, the last of each name.

        Returns:
          False outside of a callback: nothing is sent then.
        """
        with self._lock:
            if self._logged is None:
                log.error("log_metric outside of a callback: nothing was sent.")
                return False
            self._logged |= metrics_of(dict(metrics))
            return True

    def log_attributes(self, attributes: Mapping[str, str]) -> bool:
        """Let the site say something of itself, for plans that choose sites by it.

        Returns:
          False once it runs: say it before run().
        """
        if self._running:
            log.error("log_attributes after run() has begun: nothing was said.")
            return False
        self._attributes |= {str(name): str(value) for name, value in attributes.items()}
        return True

    def log_telemetry(self, telemetry: Mapping[str, float]) -> bool:
        """Send nothing: how busy a machine is stays there."""
        return False

    def send_status(self, msg: str, *unused: Any, **more: Any) -> None:
        """Write a line to the log of this process; the server knows a task's state by itself."""
        log.info("%s", msg)

    # ---- compute packages

    def init_remote_compute_package(
        self, url: str, token: str | None, package_checksum: str | None = None
    ) -> bool:
        """Tell whether packages run here; each comes with its session, not before.

        A checksum of FEDn's is that of an archive, and no archive comes here: with one, False.
        """
        return self._fetched() and self.validate_compute_package(package_checksum)

    def validate_compute_package(self, checksum: str | None) -> bool:
        """Tell that there is nothing to compare; digests of packages are checked always."""
        if checksum:
            log.error(
                "package_checksum cannot be compared: the digest of each session's package is "
                "checked by itself; see it with hansa site requests, or leave the checksum out."
            )
        return not checksum

    def _fetched(self, *unused: Any, **more: Any) -> bool:
        """Tell whether this process runs packages, which the site's agent fetches and sets up."""
        if not self._remote:
            log.error("This client runs callbacks; connect with package = remote for packages.")
        return self._remote

    def init_local_compute_package(self) -> bool:
        """Refuse: a package is a session's, and its digest what its owner has approved."""
        log.error("FednClient runs no package from a folder: use callbacks, or package = remote.")
        return False

    download_compute_package = set_compute_package_checksum = _fetched
    set_dispatcher = get_or_set_environment = _fetched


def _folder_of(url: str, token: str | None) -> Path:
    """Return the folder of a token's site.

    Raises:
      IdentityError: invite-malformed.
    """
    if given := os.environ.get(FOLDER):
        return Path(given)
    invite = invitation({"token": token, "api_url": url})
    place = re.sub(r"[^A-Za-z0-9.-]+", "-", invite.url.partition("://")[2])
    # By a digest of the token, which stands nowhere in the clear.
    digest = blake3(invite.token.encode()).hexdigest()[:16]
    return hansa_home() / "fedn-clients" / f"{place}-{digest}"


def _names(said: Any) -> tuple[str, ...]:
    names = said.split(",") if isinstance(said, str) else list(said)
    return tuple(str(name).strip() for name in names if str(name).strip())


def _told(settings: SiteSettings) -> None:
    print(f"{settings.name} takes part", flush=True)
