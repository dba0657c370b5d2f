"""A server's side in memory: what a `Connection` would answer, and blobs to send and fetch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import numpy as np
import pytest
from blake3 import blake3

from hansa.errors import RequestRefused, ServerError
from hansa.identity import Membership, check_certificate, from_text, submission_text, verify
from hansa.identity.authority import create_authority, load_authority
from hansa.identity.home import membership_folder, save_membership
from hansa.identity.keys import own_key
from hansa.params import Params, encode
from hansa.protocol.messages import BlobRef, Submission

URL = "https://hansa.test:8443"


class StandIn:
    """Takes the place of connections, uploads and downloads."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.events: list[dict[str, Any]] = []
        self.submissions: list[Submission] = []
        self.asked: list[str] = []
        self.fetched: list[str] = []
        self.trouble: list[Exception] = []  # raised one after the other by the next calls
        self.page = 3  # events at a time
        self.renewal = False  # whether members are asked to renew their certificates
        self.before_answer: Callable[[str], None] = lambda path: None

    # ---- as a Connection

    def call(
        self,
        method: str,
        path: str,
        message: Any = None,
        *,
        kind: Any,
        timeout_s: float | None = None,
    ) -> Any:
        self.asked.append(f"{method} {path}")
        if self.trouble:
            raise self.trouble.pop(0)
        body = None if message is None else msgspec.json.encode(message)
        answer = self._answer(method, path, body)
        self.before_answer(path)
        return msgspec.json.decode(msgspec.json.encode(answer), type=kind)

    def renewal_due(self) -> bool:
        return self.renewal

    def renewed(self) -> None:
        self.renewal = False

    def close(self) -> None: ...

    def _answer(self, method: str, path: str, body: bytes | None) -> Any:
        place = urlsplit(path)
        match (method, [unquote(part) for part in place.path.split("/")[2:]]):
            case ("POST", ["runs"]):
                assert body is not None
                return self._submit(msgspec.json.decode(body, type=Submission))
            case ("GET", ["runs"]):
                return {"runs": [self._facts()] if self.submissions else []}
            case ("GET", ["models"]):
                return {"models": [], "next": None}
            case ("GET", ["runs", "far-7"]):
                return {"facts": self._facts(), "submission": self.submissions[0], "hansa": "0.1"}
            case ("GET", ["runs", "far-7", "events"]):
                after = int(parse_qs(place.query)["after"][0])
                page = self.events[after : after + self.page]
                return {"events": page, "next": min(after, len(self.events)) + len(page),
                        "state": self.state}  # fmt: skip
            case ("POST", ["runs", "far-7", "stop"]):
                assert body == b"{}"
                self.events.append(event("ended", state="stopped", reason="stopped by ada"))
                return self._facts()
        raise RequestRefused(
            "run-not-found", f"There is no such thing: {path}.", "Look again.", status=404
        )

    def _submit(self, submission: Submission) -> Any:
        assert {submission.package.digest, submission.seed_model.digest} <= self.blobs.keys()
        if submission.id not in [known.id for known in self.submissions]:
            self.submissions.append(submission)
        return self._facts()

    def _facts(self) -> dict[str, Any]:
        sites = [
            {"site": "north", "state": "ready", "online": True},
            {"site": "south", "state": "waiting", "reason": "nobody has decided"},
        ]
        return {"run": "far-7", "state": self.state, "reason": "one site is missing",
                "submitter": "ada", "rounds": 3, "rounds_done": 1, "sites": sites}  # fmt: skip

    @property
    def state(self) -> str:
        ended = [e for e in self.events if e["kind"] == "ended"]
        return str(ended[-1]["state"]) if ended else "running"

    # ---- blobs

    def upload(self, connection: Any, source: Any, *, to: str) -> BlobRef:
        assert to == "blobs"
        data = source.read_bytes() if isinstance(source, Path) else bytes(source)
        digest = f"blake3:{blake3(data).hexdigest()}"
        self.blobs[digest] = data
        return BlobRef(digest=digest, size=len(data))

    def download(
        self, connection: Any, ref: BlobRef, target: Path, *, known: Sequence[Path] = ()
    ) -> None:
        self.fetched.append(ref.digest)
        if ref.digest not in self.blobs:
            raise RequestRefused("blob-missing", "It is not there.", "Go on.", status=404)
        assert len(self.blobs[ref.digest]) == ref.size
        target.write_bytes(self.blobs[ref.digest])

    # ---- a run's story

    def keep(self, params: Params) -> tuple[str, int]:
        data = b"".join(bytes(part) for part in encode(params))
        self.blobs[params.digest()] = data
        return params.digest(), len(data)

    def commit(self, number: int, value: float, *, best: int = 0) -> None:
        digest, size = self.keep(model(value))
        row = {
            "round": number,
            "seconds": 0.25,
            "clients": {"asked": 2, "accepted": 2, "failed": 0, "refused": 0},
            "bytes": {"down": 8, "up": 8},
            "train": {"loss": {"mean": value, "min": value, "max": value}},
        }
        progress = {"best": value, "best_round": best, "evaluations_since": 0, "ended": None}
        self.events.append(
            event("committed", round=number, model=digest, model_size=size, state=None,
                  row=row if number else {}, progress=progress, elapsed=number / 4)
        )  # fmt: skip

    def round(self, number: int, *, best: int = 0) -> None:
        self.events += [
            event("opened", round=number, phase="train", cohort=["north", "south"],
                  clients=["north", "south"], weight_limit=2.0),
            event("result", round=number, phase="train", client="north", state="accepted",
                  code="", reason="", digest="blake3:0", size=8, weight=1.0),
            event("result", round=number, phase="train", client="south", state="accepted",
                  code="", reason="", digest="blake3:1", size=8, weight=1.0),
            event("closed", round=number, phase="train", accepted=["north", "south"]),
        ]  # fmt: skip
        self.commit(number, float(number), best=best)

    def run(self, rounds: int = 3, *, best: int = 0) -> None:
        self.events += [event("submitted", submitter="ada")]
        self.commit(0, 0.0)
        self.events += [
            event("standing", site="north", state="ready", reason="", examples=40),
            event("waiting", reason="south has not decided"),
            event("started"),
        ]
        for number in range(1, rounds + 1):
            self.round(number, best=best or number)
        self.events.append(event("ended", state="finished", reason=f"all {rounds} rounds are done",
                                 code=""))  # fmt: skip


def event(kind: str, **facts: Any) -> dict[str, Any]:
    return {"kind": kind, "at": "2026-01-01T00:00:00+00:00", **facts}


def model(value: float) -> Params:
    return Params.of({"w": np.full(3, value, np.float32), "n": np.int64(0)})


def unreachable() -> ServerError:
    return ServerError("server-unreachable", "Nothing is heard.", "Wait.")


def join(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[StandIn, Membership]:
    """Make a membership below `folder`, and let a stand-in be what it connects to."""
    monkeypatch.setenv("HANSA_HOME", str(folder / "home"))
    (folder / "authority").mkdir(parents=True)
    create_authority(folder / "authority", federation="test league")
    authority = load_authority(folder / "authority")
    place = membership_folder(URL)
    place.mkdir(parents=True)
    key = own_key(place / "key.pem")
    certificate = authority.issue_member("ada", "submitter", key.public)
    membership = Membership(place, URL, "ada", "submitter", authority.pem, "", "test league")
    save_membership(membership, certificate)
    server = StandIn()
    monkeypatch.setattr("hansa.remote.connecting.connection_of", lambda *a, **k: server)
    # By name: the package exports functions that are called as their modules are.
    monkeypatch.setattr(importlib.import_module("hansa.remote.submit"), "upload", server.upload)
    monkeypatch.setattr(importlib.import_module("hansa.remote.fetch"), "download", server.download)
    return server, membership


def check_signature(submission: Submission, membership: Membership) -> None:
    """Check a submission as a site would."""
    certificate = check_certificate(submission.certificate, membership.authority_pem, at=None)
    text = submission_text(submission.identity, submission.package.digest)
    verify(certificate.public, from_text(submission.signature), text)
