"""A run is a folder.

    run.json            what it is: identity, engine, where the project lies
    plan.json           the plan with every default, and where each value came from
    code/               the project's Python files and plan.toml as they were
    environment.json    versions and machine
    events.jsonl        what happened, in order; the truth about the run
    metrics.jsonl       one line a round, made from the events
    spans.jsonl         where each round's time went, one line a span
    models/             the model trail: round-000010.safetensors
    state/              what the algorithm keeps besides the model, of the last commit
    clients/            what clients keep between rounds
    failures/           tracebacks of clients that failed
    report.html         one page to look at

A commit writes the model, then the state, then one event; only the event makes it count.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from blake3 import blake3

from hansa.clock import monotonic
from hansa.errors import ParamsError, RunError
from hansa.runs.events import Event, EventLog, whole
from hansa.spans import TIMED, Span, Spans, model_facts, read_spans
from hansa.store.files import load_params, save_params, write_durably

if TYPE_CHECKING:
    from hansa.params import Params


class RunFolder:
    """One run's folder, for reading; `locked` makes it one's own for writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about = _read_json(path / "run.json", "run", "identity", "created")
        self._plan = _read_json(path / "plan.json", "plan", "sources")
        self.log = EventLog(path / "events.jsonl")

    @classmethod
    def create(
        cls,
        runs: Path,
        name: str,
        *,
        about: dict[str, Any],
        files: dict[str, bytes],
        seed: Sequence[bytes | memoryview] | None = None,
    ) -> RunFolder:
        """Make the next folder of a name: digits-1, digits-2 ...

        Args:
          runs: the folder of runs; made if need be.
          name: the plan's name.
          about: goes into run.json, which is written last: without it there is no run.
          files: further contents by relative path.
          seed: bytes of a model to keep from the start, where its commit comes later.
        """
        path = _next_folder(runs, name)
        for sub in ("code", "models", "state", "failures"):
            (path / sub).mkdir()
        for relative, content in files.items():
            (path / relative).parent.mkdir(parents=True, exist_ok=True)
            write_durably(path / relative, [content])
        if seed is not None:
            write_durably(_model_path(path, 0), seed)
        write_durably(path / "run.json", [_json({"run": path.name, **about})])
        return cls(path)

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.path.name

    @property
    def state(self) -> str:
        """Return "running" (or interrupted), "finished", "failed" or "stopped".

        The last three are final; stopped is what a person did to a run at its server.
        """
        ended = self.log.last("ended")
        return ended["state"] if ended else "running"

    @property
    def remote(self) -> dict[str, Any] | None:
        """Return where the run itself is: `url`, and `run`, its name there once it has one."""
        found: dict[str, Any] | None = self.about.get("remote")
        return found

    @property
    def rehearsed(self) -> bool:
        """Return whether the run is of a rehearsal, whose server is gone once it has ended."""
        return bool((self.remote or {}).get("rehearsal"))

    def accepted(self, run: str) -> None:
        """Note the name that the server has given the run."""
        self.about = {**self.about, "remote": {**(self.remote or {}), "run": run}}
        write_durably(self.path / "run.json", [_json(self.about)])

    @contextlib.contextmanager
    def locked(self, patience_s: float = 1.0) -> Iterator[None]:
        """Hold a lock that one process at a time has; the system frees it when that dies.

        A second of patience: somebody may only be asking whether the run is locked.

        Raises:
          RunError: another process is working on the run.
        """
        import filelock  # slow to import, and only writers need it

        try:
            with filelock.FileLock(self.path / "lock", timeout=patience_s):
                yield
        except filelock.Timeout:
            raise RunError(
                "run-busy",
                f"Another process is working on the run {self.name}.",
                "Wait for it or stop it; to start a second run of the plan: hansa run --new",
            ) from None

    def commits(self) -> list[Event]:
        """Return the committed rounds in order; round 0 is the seed model."""
        return [e for e in self.log.events if e["kind"] == "committed"]

    def rows(self) -> list[dict[str, Any]]:
        """Return the metrics of each committed round."""
        return [whole(e["row"]) for e in self.commits() if e["round"] > 0]

    def spans(self, *, most: int | None = None) -> list[Span]:
        """Return where the time of each committed round went; see `hansa.spans`.

        A round that a crash has made repeat is told as it was the last time.  With `most` no more
        bytes than these are read, and the oldest rounds are left out.
        """
        commits = self.commits()
        last = commits[-1]["round"] if commits else 0
        return read_spans(self.path / "spans.jsonl", last, most=most)

    def plan(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        plan: dict[str, Any] = self._plan["plan"]
        return plan

    def plan_sources(self) -> dict[str, str]:
        """Return where each value of the plan that is not a default came from."""
        sources: dict[str, str] = self._plan["sources"]
        return sources

    def environment(self) -> dict[str, str]:
        """Return versions and machine."""
        path = self.path / "environment.json"
        return _read_json(path) if path.is_file() else {}

    def lacks_model(self) -> bool:
        """Return whether the newest model that its server keeps is not here (yet)."""
        return any(not self.model_path(e["round"]).is_file() for e in self.kept()[-1:])

    def is_locked(self) -> bool:
        """Return whether a process is working on the run at this moment."""
        try:
            with self.locked(patience_s=0):
                return False
        except RunError:
            return True
        except OSError:  # a folder that one may only read: nobody works on it from here
            return False

    def commit(
        self,
        number: int,
        model: Params,
        state: Params | None,
        *,
        spans: Spans | None = None,
        needs: Sequence[int] = (),
        **facts: Any,
    ) -> Event:
        """Make a round durable, and then forget what only the round before needed.

        Args:
          number: of the round.
          model: the global one.
          state: what the algorithm keeps besides.
          spans: where the round's time went; written with it.
          needs: rounds whose models stay at this commit, whatever the plan keeps.
          facts: further fields of the event.
        """
        began, digest = monotonic(), model.digest()
        save_params(self.model_path(number), model)
        if state is not None:
            save_params(self._state_path(number), state)
        event = {
            "kind": "committed",
            "round": number,
            "model": digest,
            "state": state.digest() if state is not None else None,
            **facts,
        }
        if spans is not None:
            spans.note("save", began, **model_facts(model))
            self._append("spans.jsonl", spans.close(number)["spans"])
        (event,) = self.log.extend([event])
        if number:
            self._append("metrics.jsonl", [event["row"]])
        self._forget(number, event["progress"].get("best_round", 0), needs)
        self._write_as_numpy(model)
        return event

    def mirror(self, events: Sequence[Event]) -> None:
        """Add what happened at the server; models are for the caller to fetch.

        The log of such a run holds the server's events and nothing else, so that their number
        says where to go on reading.
        """
        if not events:
            return
        for event in events:  # before the log says that they are here
            if event["kind"] == TIMED:
                self._append("spans.jsonl", event["spans"])
        self.log.extend([{k: v for k, v in e.items() if k != "spans"} for e in events])
        rows = [e["row"] for e in events if e["kind"] == "committed" and e["round"]]
        self._append("metrics.jsonl", rows)

    def kept(self) -> list[Event]:
        """Return the commits whose models stay: every n-th, the newest few, and the best."""
        commits = self.commits()
        if not commits:
            return []
        number, best = commits[-1]["round"], commits[-1]["progress"].get("best_round", 0)
        return [e for e in commits if self._stays(e["round"], number, best)]

    def forget_models(self) -> None:
        """Remove models that nobody asked to keep, once newer ones are here."""
        if commits := self.commits():
            number = commits[-1]["round"]
            self._forget(number, commits[-1]["progress"].get("best_round", 0))
            if self.plan()["keep"].get("as_numpy") and self.model_path(number).is_file():
                self._write_as_numpy(load_params(self.model_path(number)))

    def load(self, commit: Event) -> tuple[Params, Params | None]:
        """Return the model and the algorithm's state of a commit, checked against its digests.

        Raises:
          RunError: a file is missing or has changed.
        """
        model = _checked(self.model_path(commit["round"]), commit["model"])
        if commit["state"] is None or self.remote is not None:  # the server keeps its state
            return model, None
        return model, _checked(self._state_path(commit["round"]), commit["state"])

    def check_model(self, number: int) -> None:
        """Refuse a model file that is not what was committed.

        Raises:
          RunError: the file is missing or has changed.
        """
        _checked(self.model_path(number), self.digest(number))

    def digest(self, number: int) -> str:
        """Return the digest of a committed round's model."""
        digest: str = next(e["model"] for e in self.commits() if e["round"] == number)
        return digest

    def model_path(self, number: int) -> Path:
        """Return where the model of a round lies, if it was kept."""
        return _model_path(self.path, number)

    def rewrite_metrics(self) -> None:
        """Make metrics.jsonl say what the events say, after a crash between the two."""
        write_durably(self.path / "metrics.jsonl", [_lines(self.rows())])

    def reload(self) -> None:
        """Read the events again; another process may have added some before we had the lock."""
        self.log = EventLog(self.path / "events.jsonl")

    def sweep(self) -> None:
        """Remove what a killed process has left half done."""
        leftovers = [*self.path.rglob(".hansa-*.tmp"), *self.path.glob("scratch/*")]
        for path in leftovers:
            with contextlib.suppress(OSError):
                path.unlink()

    def save_failure(self, number: int, client: str, trace: str, *, phase: str) -> str:
        """Keep a client's traceback; return the file's name within the run folder."""
        safe = "".join(c if (c.isascii() and c.isalnum()) or c in "-_" else "_" for c in client)
        if safe != client or len(client) > 40:
            safe = f"{safe[:40]}-{blake3(client.encode()).hexdigest()[:8]}"
        relative = f"failures/round-{number:06d}-{phase}-{safe}.txt"
        (self.path / relative).write_text(trace, encoding="utf-8")
        return relative

    def _state_path(self, number: int) -> Path:
        return self.path / "state" / f"round-{number:06d}.safetensors"

    def _write_as_numpy(self, model: Params) -> None:
        """Write the newest model as the plan's keep.as_numpy says; old plans say nothing.

        Raises:
          PlanError: an array file is asked for, and the model has several tensors.
        """
        if (name := self.plan()["keep"].get("as_numpy")) is not None:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            from hansa.runs.export import write_numpy

            write_numpy(self.path / name, model)

    def _append(self, name: str, values: Sequence[dict[str, Any]]) -> None:
        if values:
            with open(self.path / name, "ab") as file:
                file.write(_lines(values))

    def _stays(self, past: int, number: int, best: int) -> bool:
        """Return whether a round's model is kept once round `number` is committed."""
        keep = self.plan()["keep"]
        every = keep["every"]
        on_disk = keep.get("store", "disk") == "disk"  # old plans say nothing
        newest = keep.get("lineage", 1) if on_disk else 1
        if past in (number, best) or (on_disk and past and past > number - (newest or number)):
            return True
        return bool(past and every and past % every == 0)

    def _forget(self, number: int, best: int, needs: Sequence[int] = ()) -> None:
        """Remove models that nobody asked to keep: neither every n-th, nor best, nor last."""
        for path in self.path.glob("models/round-*.safetensors"):
            past = int(path.stem.removeprefix("round-"))
            if past not in needs and not self._stays(past, number, best):
                path.unlink()
        for path in self.path.glob("state/round-*.safetensors"):
            if path != self._state_path(number):
                path.unlink()


def all_runs(runs: Path) -> Iterator[RunFolder]:
    """Yield the runs of a folder, oldest first; damaged ones are left out."""
    folders = [p.parent for p in runs.glob("*/run.json")]
    for path in sorted(folders, key=lambda p: (p / "run.json").stat().st_mtime_ns):
        try:
            yield RunFolder(path)
        except RunError:
            continue


def find_run(runs: Path, name: str | None) -> RunFolder:
    """Return a run by name or path; without a name the newest one.

    Raises:
      RunError: there is none.
    """
    if name is not None:
        for path in (runs / name, Path(name)):
            if (path / "run.json").is_file():
                return RunFolder(path)
    found = list(all_runs(runs))
    if name is None and found:
        return found[-1]
    known = ", ".join(run.name for run in found[-8:])
    raise RunError(
        "run-not-found",
        f"There is no run {name!r} in {runs}." if name else f"There is no run in {runs}.",
        f"There are: {known}." if known else "Make one with: hansa run, or hansa hello",
    )


def _model_path(path: Path, number: int) -> Path:
    return path / "models" / f"round-{number:06d}.safetensors"


def _next_folder(runs: Path, name: str) -> Path:
    runs.mkdir(parents=True, exist_ok=True)
    numbers = [p.name.removeprefix(f"{name}-") for p in runs.glob(f"{name}-*")]
    number = 1 + max((int(n) for n in numbers if n.isdecimal()), default=0)
    while True:
        path = runs / f"{name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:  # another process was quicker
            number += 1
        else:
            return path


def _checked(path: Path, digest: str) -> Params:
    try:
        params = load_params(path)
        found = params.digest()
    except (ParamsError, OSError) as error:
        found, params = str(error), None
    if params is None or found != digest:
        raise RunError(
            "run-damaged",
            f"{path} is not what was committed ({digest[:20]}...): {found[:200]}.",
            "Restore the file from a backup, or start anew with: hansa run --new",
        )
    return params


def _read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Return an object that has these keys."""
    try:
        facts = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        if missing := [key for key in keys if key not in facts]:
            raise msgspec.ValidationError(f"it lacks {', '.join(missing)}")
        return facts
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RunError(
            "run-damaged",
            f"{path} cannot be read: {error}.",
            "Restore the run folder from a backup, or remove it.",
        ) from None


def _lines(values: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(msgspec.json.encode(value) + b"\n" for value in values)


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
