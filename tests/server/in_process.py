"""A whole server in this process, asked through its ASGI application with real proofs.

No socket is opened, so a request takes about a millisecond; everything behind the socket is the
server's own: admission, routes, journal, threads of the runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import msgspec
import numpy as np
from blake3 import blake3

from hansa.code import identity
from hansa.identity import (
    MemberKey,
    Prover,
    Role,
    enrolment_text,
    new_key,
    submission_text,
    to_text,
)
from hansa.packages import build_archive
from hansa.params import Params, decode, encode
from hansa.plan import read_plan
from hansa.protocol.messages import (
    BlobRef,
    Poll,
    PollAnswer,
    Receipt,
    RunFacts,
    Standing,
    Submission,
    Task,
    TaskKey,
    TaskResult,
)
from hansa.server.app import make_app
from hansa.server.founding import found
from hansa.server.settings import ServerSettings
from hansa.server.state import ServerState

STRANGER = "198.51.100.7"
CODE = {"model.py": b"# trained at sites, never at a server\n"}
SEED = np.array([0.5, -1.25, 2.0], np.float32)
DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64"}
ENDED = ("finished", "failed", "stopped")
PATIENCE_S = 20.0


def digest_of(content: bytes) -> str:
    return f"blake3:{blake3(content).hexdigest()}"


def joined(params: Any) -> bytes:
    return b"".join(bytes(part) for part in encode(params))


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """Return the code of a refusal; empty if it is none."""
        if self.status < 400:
            return ""
        return str(msgspec.json.decode(self.body)["error"]["code"])

    @property
    def message(self) -> str:
        return str(msgspec.json.decode(self.body)["error"]["message"])

    def read(self, kind: Any) -> Any:
        assert self.status == 200, (self.status, self.body)
        return msgspec.json.decode(self.body, type=kind)


class Member(NamedTuple):
    """Somebody with a key and a certificate."""

    name: str
    role: str
    key: MemberKey
    certificate: str


class InProcess:
    """A server that can be left and started again over the same folder."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.folder = root / "server"
        chosen = {"name": "Heart", "url": "https://localhost:8443", "gather_s": 20.0} | settings
        with mock.patch.dict(os.environ, {"HANSA_HOME": str(root / "home")}):
            found(self.folder, ServerSettings(**chosen))
        self._provers: dict[str, Prover] = {}
        self._strangers = 0
        self.state: ServerState
        self.start()

    def start(self) -> None:
        self._provers.clear()
        self.state = ServerState(self.folder)
        self.app = make_app(self.state)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._lifespan = self.app.router.lifespan_context(self.app)
        self._do(self._lifespan.__aenter__())

    def leave(self) -> None:
        """End as a server does that is told to; nothing is decided by that."""
        self._do(self._lifespan.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.state.close()

    def restart(self) -> None:
        self.leave()
        self.start()

    def _do(self, work: Any, seconds: float = 60.0) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def lose(self, *sites: str) -> None:
        """Let two heartbeats without a word of these sites be over."""
        hub = self.state.hub
        with hub._lock:
            for site in sites:
                hub._presence[site] = hub._presence[site]._replace(heard=float("-inf"))
        hub.overdue()
        assert not any(hub.online()[site].online for site in sites)

    # ---- members

    def join(self, name: str, role: Role) -> Member:
        line = self.state.invite(name, role=role, org="", expires_s=900.0, by="test")
        token, key = line.partition("#")[2].partition(".")[0], new_key()
        body = {
            "token": token,
            "public_key": to_text(key.public),
            "proof": to_text(key.sign(enrolment_text(token))),
        }
        answer = self.stranger("POST", "/v1/enrolments", msgspec.json.encode(body))
        return Member(name, role, key, answer.read(dict[str, str])["certificate"])

    def session(self, member: Member) -> str:
        body = msgspec.json.encode({"certificate": member.certificate})
        answer = self.stranger("POST", "/v1/sessions", body)
        return str(answer.read(dict[str, Any])["session"])

    # ---- requests

    def stranger(self, method: str, target: str, body: bytes = b"") -> Reply:
        """Ask as somebody from an address of his own, who knocks for the first time."""
        self._strangers += 1
        address = f"203.0.{self._strangers // 250}.{self._strangers % 250}"
        return self.raw(method, target, body, address=address)

    def ask(
        self,
        member: Member,
        method: str,
        target: str,
        message: Any = None,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Ask as a member, with a proof of its own."""
        if message is not None:
            body = msgspec.json.encode(message)
        for _ in range(2):  # as a client, which opens another session when one is over
            if member.name not in self._provers:
                self._provers[member.name] = Prover(member.key, self.session(member))
            proof = self._provers[member.name].header(method, target, blake3(body).hexdigest())
            named = {"hansa-proof": proof} | dict(headers or {})
            answer = self.raw(method, target, body, headers=named)
            if answer.status != 401 or answer.code != "identity-session":
                break
            del self._provers[member.name]
        return answer

    def raw(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        address: str = STRANGER,
    ) -> Reply:
        return self._do(self._call(method, target, body, headers=headers or {}, address=address))

    async def _call(
        self, method: str, target: str, body: bytes, *, headers: Mapping[str, str], address: str
    ) -> Reply:
        path, _, query = target.partition("?")
        fields = {"content-length": str(len(body))} | dict(headers)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "https",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(n.encode(), v.encode()) for n, v in fields.items()],
            "client": (address, 5),
            "server": ("localhost", 8443),
        }
        pieces = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if pieces:
                return pieces.pop()
            await asyncio.sleep(PATIENCE_S)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start = sent[0]
        named = {n.decode().lower(): v.decode() for n, v in start["headers"]}
        content = b"".join(bytes(m.get("body", b"")) for m in sent[1:])
        return Reply(start["status"], named, content)

    # ---- runs

    def submission(
        self, submitter: Member, *, model: np.ndarray = SEED, **plan: Any
    ) -> tuple[Submission, bytes, bytes]:
        """Return a submission, its package and its seed model, none of them sent."""
        return submission_of(submitter, model=model, **plan)

    def upload(self, submitter: Member, *contents: bytes) -> None:
        for content in contents:
            answer = self.ask(submitter, "PUT", f"/v1/blobs/{digest_of(content)}", body=content)
            assert answer.status == 200, answer

    def submit(self, submitter: Member, *, model: np.ndarray = SEED, **plan: Any) -> str:
        """Submit a run of small closed form; return its name."""
        submission, package, start = self.submission(submitter, model=model, **plan)
        self.upload(submitter, package, start)
        answer = self.ask(submitter, "POST", "/v1/runs", submission)
        return str(answer.read(RunFacts).run)

    def begin(self, submitter: Member, sites: Mapping[Site, int], **plan: Any) -> str:
        """Submit a run in which these sites, with so many examples each, take part from the start.

        It waits for the word of each that is there, so nobody else may have polled before.
        """
        for site in sites:
            site.poll()
        run = self.submit(submitter, **plan)
        for site, examples in sites.items():
            site.ready(run, examples)
        return run

    def facts(self, run: str) -> RunFacts:
        row = self.state.journal.run(run)
        assert row is not None
        return RunFacts(run=run, state=row.state, reason=row.reason)

    def until(self, holds: Callable[[], Any], what: str = "", seconds: float = PATIENCE_S) -> Any:
        """Wait until something holds, and return it."""
        end = time.monotonic() + seconds
        while True:
            found = holds()
            if found:
                return found
            assert time.monotonic() < end, f"in vain: {what}"
            time.sleep(0.003)

    def ended(self, run: str) -> RunFacts:
        """Wait for the end of a run."""
        self.until(lambda: self.facts(run).state in ENDED, f"{run} has ended")
        return self.facts(run)

    def events(self, run: str, kind: str) -> list[dict[str, Any]]:
        return self.state.journal.all_events(run, kind)

    def model(self, run: str, number: int) -> np.ndarray:
        """Return x of a committed round."""
        committed = next(e for e in self.events(run, "committed") if e["round"] == number)
        return self.stored(committed["model"])

    def stored(self, digest: str) -> np.ndarray:
        params = decode(self.state.blobs.path(digest).read_bytes())
        return next(iter(params.to_dict().values()))


def submission_of(
    submitter: Member, *, model: np.ndarray = SEED, **plan: Any
) -> tuple[Submission, bytes, bytes]:
    table: dict[str, Any] = {
        "name": "study",
        "rounds": 1,
        "learner": {"module": "model.py"},
        "evaluate": {"clients": 0},
    }
    chosen = read_plan(table | plan).plan
    package = build_archive(CODE | {"plan.toml": b"name = 'study'\n"})
    start = joined(Params.of({"w": model}))
    who = identity(chosen, CODE)
    ref = BlobRef(digest=digest_of(package), size=len(package))
    submission = Submission(
        id=os.urandom(16).hex(),
        identity=who,
        plan=msgspec.to_builtins(chosen),
        package=ref,
        seed_model=BlobRef(digest=digest_of(start), size=len(start)),
        tensors=[("w", DTYPES[str(model.dtype)], list(model.shape))],
        buffers=[],
        signature=to_text(submitter.key.sign(submission_text(who, ref.digest))),
        certificate=submitter.certificate,
    )
    return submission, package, start


class Site:
    """A site that does by hand what an agent does by itself."""

    def __init__(self, server: InProcess, name: str) -> None:
        self.server, self.name = server, name
        self.member = server.join(name, "site")
        self._asked = key_of("none")  # the last task that was given out

    def ask(self, method: str, target: str, message: Any = None, **named: Any) -> Reply:
        return self.server.ask(self.member, method, target, message, **named)

    def poll(self, runs: Sequence[str] = (), holding: Sequence[TaskKey] = ()) -> PollAnswer:
        poll = Poll(runs=tuple(runs), holding=tuple(holding), wait=False)
        return self.ask("POST", "/v1/poll", poll).read(PollAnswer)  # type: ignore[no-any-return]

    def ready(self, run: str, examples: int = 100) -> None:
        """Be there, and take part in a run."""
        self.poll()
        standing = Standing(state="ready", examples=examples)
        assert self.ask("POST", f"/v1/runs/{run}/standing", standing).status == 200

    def task(self, run: str, number: int = 1, phase: str = "train") -> Task:
        """Poll until a task is given out."""

        def given() -> Task | None:
            tasks = self.poll([run]).tasks
            return next(
                (t for t in tasks if (t.key.run, t.key.round, t.key.phase) == (run, number, phase)),
                None,
            )

        found = self.server.until(given, f"{self.name} gets {phase} {number} of {run}")
        assert isinstance(found, Task)
        if phase == "train":
            self._asked = found.key
        return found

    def received(self, task: Task) -> dict[str, np.ndarray]:
        """Fetch a task's message."""
        answer = self.ask("GET", f"/v1/blobs/{task.message.digest}")
        assert answer.status == 200
        return decode(answer.body).to_dict()

    def put(self, content: bytes, key: TaskKey | None = None) -> Reply:
        """Upload an update, by default for the last task."""
        return self.ask("PUT", self.place(content, key), body=content)

    def place(self, content: bytes, key: TaskKey | None = None, more: str = "") -> str:
        """Return where an update is put, or something below it."""
        key = key or self._asked
        return f"/v1/updates/{digest_of(content)}{more}?run={key.run}&round={key.round}"

    def report(self, key: TaskKey, result: TaskResult) -> Reply:
        return self.ask("POST", f"/v1/runs/{key.run}/rounds/{key.round}/{key.phase}/result", result)

    def send(
        self, key: TaskKey, values: Any, weight: float, metrics: dict[str, Any] | None = None
    ) -> Reply:
        """Upload an update of these values and report it."""
        return self.send_bytes(key, update_bytes(values), weight, metrics=metrics)

    def send_bytes(
        self, key: TaskKey, content: bytes, weight: float, metrics: dict[str, Any] | None = None
    ) -> Reply:
        refused = self.put(content, key)
        if refused.status != 200:
            return refused
        return self.report(key, done(content, weight, metrics))

    def deliver(
        self, key: TaskKey, content: bytes, result: TaskResult, *, header: str | None = None
    ) -> Reply:
        """Upload an update that brings its result; with another header than was signed."""
        target, headers = delivery(key, content, result)
        headers = headers if header is None else {"hansa-result": header}
        return self.ask("PUT", target, body=content, headers=headers)

    def fail(self, key: TaskKey, reason: str = "it was told to") -> Reply:
        return self.report(key, TaskResult(state="failed", code="client-failed", reason=reason))

    def receipts(self, after: int = 0) -> list[Receipt]:
        answer = self.ask("GET", f"/v1/receipts?after={after}").read(dict[str, Any])
        return msgspec.convert(answer["receipts"], list[Receipt])


def delivery(key: TaskKey, content: bytes, result: TaskResult) -> tuple[str, dict[str, str]]:
    """Return where an update is put that brings its result, and the header that it is in."""
    text = to_text(msgspec.json.encode(result))
    where = f"run={key.run}&round={key.round}&phase={key.phase}"
    query = f"{where}&result={blake3(text.encode()).hexdigest()}"
    return f"/v1/updates/{digest_of(content)}?{query}", {"hansa-result": text}


def update_bytes(values: Any, name: str = "delta") -> bytes:
    return joined(Params.of({name: np.asarray(values, np.float32)}))


def done(content: bytes, weight: float, metrics: dict[str, Any] | None = None) -> TaskResult:
    ref = BlobRef(digest=digest_of(content), size=len(content))
    return TaskResult(state="done", update=ref, weight=weight, metrics=metrics or {})


def key_of(run: str, number: int = 1, phase: Any = "train") -> TaskKey:
    return TaskKey(run=run, round=number, phase=phase)


@contextlib.contextmanager
def in_process(root: Path, **settings: Any) -> Iterator[InProcess]:
    server = InProcess(root, **settings)
    try:
        yield server
    finally:
        server.leave()
