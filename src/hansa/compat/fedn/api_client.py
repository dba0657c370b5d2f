"""FEDn's `APIClient`, over a server of Hansa: the same calls, and answers in the same shapes.

    client = APIClient("fl.example.org", 8443, token="https://fl.example.org:8443#TOKEN.FINGERPRINT")
    client.set_active_package("package.tgz", "numpyhelper")
    client.set_active_model("seed.npz")
    client.start_session(name="first", rounds=5)

Whoever has joined the federation needs no token.  Else it is the line that its operator has given
to a person, which is redeemed once; the key then stays on this machine.  The connection is always
TLS, against the federation's own authority: `secure` and `verify` cannot switch that off.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from hansa.clock import now
from hansa.compat.fedn import shapes
from hansa.compat.fedn.desk import Desk, PackageNote, SeedNote, note_id
from hansa.compat.fedn.formats import FORMS, read_model, write_model
from hansa.compat.fedn.reading import read_package
from hansa.compat.fedn.records import Records
from hansa.compat.fedn.sessions import Wanted, going_on, refused, start
from hansa.compat.fedn.shapes import Entry, listed, matching
from hansa.compat.fedn.writing import LABELS
from hansa.errors import IdentityError, RunError
from hansa.identity import Membership, membership_folder, parse_invite
from hansa.limits import BLOB_BYTES_MAX, SPLIT_FEATURES
from hansa.protocol.enrolment import enrol
from hansa.remote.connecting import connected, membership_at
from hansa.remote.predicting import submit_prediction
from hansa.remote.trail import fetch_model
from hansa.store.files import load_params, write_durably

log = logging.getLogger("fedn")

TOKEN = "FEDN_AUTH_TOKEN"
"""Where the token is looked for if none is given."""


class APIClient:
    """A person's way to a federation, with FEDn's calls.

    Args:
      host: of the server, with or without https:// and port.
      port: of the server.
      secure: without effect; the connection is always TLS.
      verify: without effect; the server is always verified.
      token: an invitation, which is redeemed if one is not a member yet.
      auth_scheme: without effect.

    Raises:
      IdentityError: one is no member of that federation, and has no invitation.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        secure: bool = True,
        verify: bool = True,
        token: str | None = None,
        auth_scheme: str | None = None,
    ) -> None:
        self._membership = _member(host, port, token or os.environ.get(TOKEN))
        self._desk = Desk(self._membership)
        self._records = Records(self._membership, self._desk)

    # ---- clients, combiners, the controller

    def get_client(self, id: str) -> Entry:
        """Return one client."""
        return _one(self._records.clients(), id, "client")

    def get_clients(self, n_max: int | None = None) -> Entry:
        """List clients; a submitter sees those that its federation's runs have asked."""
        return listed(self._records.clients(), n_max, newest=False)

    def get_clients_count(self) -> int:
        """Return how many clients there are."""
        return len(self._records.clients())

    def get_active_clients(self, combiner_id: str | None = None) -> Entry:
        """List the clients that are connected."""
        active = [client for client in self._records.clients() if client["status"] == "online"]
        return listed(active, newest=False)

    def get_client_config(self, checksum: bool = True) -> Entry:
        """Refuse: a client of Hansa joins by an invitation.

        Raises:
          PlanError: import-refused.
        """
        raise refused(
            "client configuration: a client joins by an invitation, and keeps a key of its own",
            "Invite it with: hansa server invite SITE; it joins with: hansa site join LINE",
        )

    def get_combiner(self, id: str) -> Entry:
        """Return one combiner."""
        return _one(self._records.combiners(), id, "combiner")

    def get_combiners(self, n_max: int | None = None) -> Entry:
        """List combiners: the server, which combines itself."""
        return listed(self._records.combiners(), n_max)

    def get_combiners_count(self) -> int:
        """Return how many combiners there are."""
        return len(self._records.combiners())

    def get_controller_status(self) -> Entry:
        """Return "instructing" while a session goes on, or "idle"."""
        going = any(run.state in ("waiting", "running") for run in self._records.runs())
        return {"state": "instructing" if going else "idle"}

    # ---- packages

    def set_active_package(
        self,
        path: str,
        helper: str,
        name: str | None = None,
        description: str = "",
        *,
        data: str = "data",
        env: Sequence[str] = (),
        settings: Sequence[str] = (),
        environment: bool = True,
    ) -> Entry:
        """Take a compute package, for the sessions that are started from now on.

        Args:
          path: of a .tgz, .tar.gz or .tar.bz2.
          helper: of its model files.
          name: for people.
          description: for people.
          data: name under which sites declare the data of this package.
          env: variables of its commands, NAME=VALUE; what a client's own ENTRYPOINT_OPTS is there.
          settings: client settings, KEY=VALUE.
          environment: build what python_env.yaml lists, at each site.

        Raises:
          PlanError: import-refused, it is no compute package, or the helper is none.
          PackageError: the archive cannot be taken.
        """
        _check_helper(helper)
        read_package(Path(path), helper)  # refused now, and not when a session starts
        content = Path(path).read_bytes()
        note = PackageNote(
            id=note_id("package", content),
            name=name or Path(path).name,
            file_name=Path(path).name,
            helper=helper,
            description=description,
            at=now(),
            data=data,
            env=tuple(env),
            settings=tuple(settings),
            environment=environment,
        )
        self._desk.add_package(content, note)
        return {"success": True, "message": "Compute package set.", "package_id": note.id}

    def get_package(self, id: str) -> Entry:
        """Return one package."""
        return _one(self._records.packages(), id, "package")

    def get_packages(self, n_max: int | None = None) -> Entry:
        """List the packages that were set from here."""
        return listed(self._records.packages(), n_max)

    def get_packages_count(self) -> int:
        """Return how many packages there are."""
        return len(self._records.packages())

    def get_active_package(self) -> Entry:
        """Return the package of the next session."""
        return _one(self._records.packages(), self._desk.state.package, "active package")

    def get_package_checksum(self, path: str | None = None) -> Entry:
        """Return the digest of the active package; Hansa compares it always, by BLAKE3."""
        content = self._package_file().read_bytes()
        return {"checksum": blake3(content).hexdigest(), "algorithm": "blake3"}

    def download_package(self, path: str) -> Entry:
        """Write the active package to a file."""
        write_durably(path, [self._package_file().read_bytes()])
        return {"success": True, "message": f"Package written to {path}."}

    # ---- models

    def set_active_model(self, path: str) -> Entry:
        """Take a seed model, in the format of the active package's helper, for the next session.

        Raises:
          LearnerError: it is no such file, or could carry code.
        """
        state = self._desk.state
        package = state.packages.get(state.package)
        helper = package.helper if package is not None else "numpyhelper"
        content = Path(path).read_bytes()
        read_model(content, FORMS[helper], most=BLOB_BYTES_MAX)
        note = SeedNote(
            id=note_id("seed", content), file_name=Path(path).name, helper=helper, at=now()
        )
        self._desk.add_seed(content, note)
        return {"success": True, "message": "Model added successfully.", "model_id": note.id}

    def get_model(self, id: str) -> Entry:
        """Return one model: of the trail, or a seed that was set."""
        seeds = {entry["id"]: entry for entry in self._records.seeds()}
        if id in seeds:
            return seeds[id]
        trail = self._records.trail()
        return self._records.model(trail, trail.find(id))

    def get_models(self, session_id: str | None = None, n_max: int | None = None) -> Entry:
        """List committed models, the newest first, of all sessions or of one."""
        trail = self._records.trail()
        entries = [self._records.model(trail, model) for model in trail.models]
        return listed(matching(entries, session_id=session_id), n_max)

    def get_models_count(self) -> int:
        """Return how many models have been committed."""
        return len(self._records.trail().models)

    def get_active_model(self) -> Entry:
        """Return what the next session starts from: the seed that was set, or the newest model."""
        model = self._desk.state.model
        if model in self._desk.state.sessions:
            trail = self._records.trail()
            return self._records.model(trail, trail.of_run(self._desk.runs_of(model)[-1])[-1])
        return _one(self._records.seeds(), model, "active model")

    def get_model_trail(
        self,
        id: str | None = None,
        include_self: bool = True,
        reverse: bool = True,
        n_max: int | None = None,
    ) -> list[Entry]:
        """Return a model's line from the seed on; by default that of the active model.

        Args:
          id: of a model.
          include_self: with that model itself.
          reverse: the oldest first.
          n_max: at most so many, the nearest.
        """
        trail = self._records.trail()
        model = trail.find(id or self.get_active_model()["model"])
        line = [*([model] if include_self else []), *trail.ancestors(model)][:n_max]
        return [self._records.model(trail, m) for m in (line[::-1] if reverse else line)]

    def get_model_ancestors(self, id: str, n_max: int | None = None) -> list[Entry]:
        """Return what a model was made from, the nearest first."""
        return self.get_model_trail(id, include_self=False, reverse=False, n_max=n_max)

    def get_model_descendants(self, id: str, n_max: int | None = None) -> list[Entry]:
        """Return what was made from a model."""
        trail = self._records.trail()
        return [self._records.model(trail, m) for m in trail.descendants(trail.find(id))][:n_max]

    def download_model(self, id: str, path: str) -> Entry:
        """Write a model to a file, in the format of the helper that its session used.

        Raises:
          RunError: model-missing, there is no such model, or it was not kept.
        """
        if id in self._desk.state.seeds:
            write_durably(path, [self._desk.seed_file(id).read_bytes()])
            return {"success": True, "message": f"Model written to {path}."}
        model = self._records.trail().find(id)
        state = self._desk.state
        package = state.packages.get(state.package)
        form = FORMS[package.helper if package is not None else "numpyhelper"]
        with connected(self._membership) as connection, tempfile.TemporaryDirectory() as place:
            file = Path(place) / "model.safetensors"
            fetch_model(connection, model, file)
            write_durably(path, [write_model(load_params(file), form)])
        return {"success": True, "message": f"Model written to {path}."}

    # ---- sessions

    def start_session(
        self,
        name: str | None = None,
        aggregator: str = "fedavg",
        aggregator_kwargs: Mapping[str, Any] | None = None,
        model_id: str | None = None,
        round_timeout: float = 180,
        rounds: int = 5,
        round_buffer_size: int = -1,
        delete_models: bool = True,
        validate: bool = True,
        helper: str | None = None,
        min_clients: int = 1,
        requested_clients: int = 8,
        server_functions: Any = None,
        *,
        id: str | None = None,
        session_id: str | None = None,
        client_ids: str | list[str] | None = None,
        package: Literal["local", "remote"] | None = None,
        labels: str | None = None,
        features: int = SPLIT_FEATURES,
    ) -> Entry:
        """Start a session: a run of the active package, from the active or a named model.

        With `package` "local", or where no package is active, it trains in the processes of
        `FednClient`.

        `labels` and `features` are those of `start_splitlearning_session`.

        `delete_models` and `requested_clients` mean nothing here, as `requested_clients` means
        nothing in FEDn: updates are forgotten when their round is committed.

        Raises:
          PlanError: a parameter has no counterpart; the message says what to do instead.
          HansaError: the session cannot be handed over.
        """
        session = id or session_id or name or ""
        if session in self._desk.state.sessions:
            raise refused(
                f"second session {session!r:.80}",
                "Go on with it: client.continue_session(...), or give another name.",
            )
        wanted = Wanted(
            session,
            aggregator,
            aggregator_kwargs,
            model_id,
            round_timeout,
            rounds,
            round_buffer_size,
            validate,
            helper,
            min_clients,
            client_ids,
            server_functions,
            package,
            labels,
            features,
        )
        return self._started(start(self._membership, self._desk, wanted))

    def continue_session(
        self, session_id: str, rounds: int = 5, round_timeout: float = 180, **more: Any
    ) -> Entry:
        """Go on with a session from its newest model and as it was begun, for further rounds.

        Raises:
          RunError: model-missing, there is no such session.
          PlanError: import-refused, it was not begun from here.
        """
        model = self._records.trail().of_run(self._desk.runs_of(session_id)[-1])[-1]
        told: dict[str, Any] = {"rounds": rounds, "round_timeout": round_timeout, **more}
        wanted = going_on(self._desk, session_id, model_id=model.name, **told)
        return self._started(start(self._membership, self._desk, wanted))

    def start_splitlearning_session(
        self,
        name: str | None = None,
        *,
        labels: str = LABELS,
        features: int = SPLIT_FEATURES,
        **session: Any,
    ) -> Entry:
        """Start a session of the active package, whose parts stay with the clients.

        FEDn's combiner has the labels and the head.  Here a site holds the labels, as an .npz file
        with y_train and perhaps y_test, and the head runs there; it may stand beside the server.

        Args:
          name: of the session.
          labels: name of that site.
          features: columns of all embeddings together, at most.
          session: as in `start_session`; `min_clients` counts those with a part.

        Raises:
          PlanError: a parameter has no counterpart; the message says what to do instead.
          HansaError: the session cannot be handed over.
        """
        split: dict[str, Any] = {"labels": labels, "features": features}
        return self.start_session(name, **{"aggregator": "splitlearningagg", **session, **split})

    def get_session(self, id: str) -> Entry:
        """Return one session."""
        return _one(self._records.sessions(), self._desk.session_of(id), "session")

    def get_sessions(self, n_max: int | None = None) -> Entry:
        """List sessions: every run at the server is one, and what continues it belongs to it."""
        return listed(self._records.sessions(), n_max)

    def get_sessions_count(self) -> int:
        """Return how many sessions there are."""
        return len(self._records.sessions())

    def get_session_status(self, id: str) -> str:
        """Return Created, Started, Finished or Terminated."""
        return str(self.get_session(id)["status"])

    def session_is_finished(self, id: str) -> bool:
        """Return whether a session has come to its end, a good one or not; a bad one is told."""
        session = self.get_session(id)
        if session["status"] == "Terminated":
            log.warning("The session %s has ended before its rounds: %s", id, session["reason"])
        return session["status"] in ("Finished", "Terminated")

    # ---- what happened

    def get_round(self, id: str) -> Entry:
        """Return one round."""
        return _one(self._records.rounds(), id, "round")

    def get_rounds(self, n_max: int | None = None) -> Entry:
        """List committed rounds, the newest first."""
        return listed(self._records.rounds(), n_max)

    def get_rounds_count(self) -> int:
        """Return how many rounds have been committed."""
        return len(self._records.rounds())

    def get_status(self, id: str) -> Entry:
        """Return one status message."""
        return _one(self._records.statuses(None), id, "status")

    def get_statuses(
        self,
        session_id: str | None = None,
        event_type: str | None = None,
        sender_name: str | None = None,
        sender_role: str | None = None,
        n_max: int | None = None,
    ) -> Entry:
        """List what happened, the newest first."""
        found = matching(
            self._records.statuses(session_id),
            event_type=event_type,
            sender_name=sender_name,
            sender_role=sender_role,
        )
        return listed(found, n_max)

    def get_statuses_count(self) -> int:
        """Return how many status messages there are."""
        return len(self._records.statuses(None))

    def get_validation(self, id: str) -> Entry:
        """Return one validation."""
        return _one(self._records.validations(None), id, "validation")

    def get_validations(
        self,
        session_id: str | None = None,
        model_id: str | None = None,
        correlation_id: str | None = None,
        sender_name: str | None = None,
        sender_role: str | None = None,
        receiver_name: str | None = None,
        receiver_role: str | None = None,
        n_max: int | None = None,
    ) -> Entry:
        """List what clients measured, the newest first; `data` is JSON text."""
        found = matching(
            self._records.validations(session_id),
            model_id=model_id,
            correlation_id=correlation_id,
            sender_name=sender_name,
            sender_role=sender_role,
            receiver_name=receiver_name,
            receiver_role=receiver_role,
        )
        return listed(found, n_max)

    def get_validations_count(self) -> int:
        """Return how many validations there are."""
        return len(self._records.validations(None))

    def start_predictions(
        self, prediction_id: str | None = None, model_id: str | None = None
    ) -> Entry:
        """Have the clients predict with a model of the trail, by default the active one.

        Args:
          prediction_id: a name by which get_predictions finds them, beside their own.
          model_id: of a model of the trail.

        Raises:
          RunError: model-missing, there is no such model, or it was not kept.
        """
        model = model_id or self.get_active_model()["model"]
        folder = submit_prediction(self._membership, model, runs=self._desk.folder / "runs")
        run = str((folder.remote or {})["run"])
        name = prediction_id or run
        self._desk.add_alias(name, run)
        return {"success": True, "message": "Prediction started.", "prediction_id": name}

    def get_predictions(
        self,
        correlation_id: str | None = None,
        model_id: str | None = None,
        prediction_id: str | None = None,
        sender_name: str | None = None,
        sender_role: str | None = None,
        n_max: int | None = None,
    ) -> Entry:
        """List what clients have predicted, the newest first; `data` is JSON text."""
        wanted = prediction_id or correlation_id
        found = matching(
            self._records.predictions(),
            prediction_id=self._desk.runs_of(wanted)[-1] if wanted else None,
            model_id=model_id,
            sender_name=sender_name,
            sender_role=sender_role,
        )
        return listed(found, n_max)

    # ---- attributes

    def get_current_attributes(self, client_ids: Sequence[str]) -> Entry:
        """List what clients say of themselves."""
        clients = [
            client for client in self._records.clients() if client["client_id"] in client_ids
        ]
        return listed(shapes.attribute_entries(clients), newest=False)

    def add_attributes(self, attribute: Any) -> Entry:
        """Refuse: what a site says of itself is its owner's.

        Raises:
          PlanError: import-refused.
        """
        raise refused(
            "attribute that somebody else gives to a client",
            'Its owner declares it in site.toml: [attributes] with region = "eu"',
        )

    # ---- inside

    def _package_file(self) -> Path:
        state = self._desk.state
        note = state.packages[_one(self._records.packages(), state.package, "active package")["id"]]
        return self._desk.package_file(note)

    def _started(self, run: str) -> Entry:
        session = self._desk.session_of(run)
        return {
            "success": True,
            "message": "Session started successfully.",
            "session_id": session,
            "config": {"session_id": session, "run": run},
        }


def _member(host: str | None, port: int | None, token: str | None) -> Membership:
    """Return one's membership; who is no member yet redeems the token."""
    server = "" if host is None else host if port is None else f"{host}:{port}"
    try:
        return membership_at(server)
    except IdentityError as error:
        if not token or "#" not in token:
            raise IdentityError(
                error.code,
                error.happened,
                "Give the line that its operator has made for you with `hansa server invite NAME "
                f"--role submitter`: as token=..., in {TOKEN}, or once to: hansa join LINE",
            ) from None
    invite = parse_invite(token)
    return enrol(invite, membership_folder(invite.url), kind="person")


def _check_helper(helper: str) -> None:
    if helper not in FORMS:
        raise refused(f"helper {helper!r:.60}", f"Valid: {', '.join(FORMS)}.")


def _one(entries: Sequence[Entry], id: str, what: str) -> Entry:
    """Return the entry of an id.

    Raises:
      RunError: model-missing, there is none.
    """
    for entry in entries:
        if id and id in (entry["id"] if "id" in entry else entry["client_id"], entry.get("name")):
            return entry
    raise RunError(
        "model-missing" if "model" in what else "run-not-found",
        f"There is no {what} {id!r:.100}." if id else f"There is no {what}.",
        "List what there is, such as with client.get_sessions() or client.get_models().",
    )
